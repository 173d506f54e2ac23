"""The same masks on one device and on eight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from nets import batches, mlp, mlp_params, squared_loss

import synflow_jax as sf

WIDE = (5, 64, 32, 4)
METHODS = {
    "synflow": lambda p: sf.synflow(p, mlp, WIDE[:1], 7.0, rounds=20),
    "magnitude": lambda p: sf.magnitude(p, 7.0),
    "random": lambda p: sf.random(jax.random.key(0), p, 7.0),
    "snip": lambda p: sf.snip(p, squared_loss, batches(dtype=jnp.float64), 7.0),
    "grasp": lambda p: sf.grasp(p, squared_loss, batches(dtype=jnp.float64), 7.0),
    "tied": lambda p: sf.prune(
        p, sf.gradient_saliency(lambda q: 0.0 * sf.weight_energy(q)), 7.0, 2
    )[0],
}


def sharded(params):
    mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(AxisType.Auto, AxisType.Auto))

    def put(leaf):
        names = ("a", "b") if leaf.ndim == 2 else ("a",)
        spec = [
            n if s % mesh.shape[n] == 0 else None for n, s in zip(names, leaf.shape, strict=True)
        ]
        return jax.device_put(leaf, NamedSharding(mesh, PartitionSpec(*spec)))

    return jax.tree.map(put, params)


@pytest.mark.parametrize("name", METHODS)
def test_one_device_and_eight_agree_in_float64(name, x64):
    params = mlp_params(0, widths=WIDE, dtype=jnp.float64)
    spread = sharded(params)
    assert len(spread["layer0"]["kernel"].devices()) == 8
    one, eight = METHODS[name](params), METHODS[name](spread)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(eight), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_masks_have_the_shardings_of_the_params():
    params = sharded(mlp_params(0, widths=WIDE))
    for name in ("synflow", "magnitude", "random"):
        masks = METHODS[name](params)
        for leaf, mask in zip(jax.tree.leaves(params), jax.tree.leaves(masks), strict=True):
            assert mask.sharding.is_equivalent_to(leaf.sharding, leaf.ndim), (name, mask.sharding)
