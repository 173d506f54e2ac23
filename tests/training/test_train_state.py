"""Masks in a TrainState: under jit, nnx.jit and vmap, and on eight devices by shard_map."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState
from jax.sharding import NamedSharding, PartitionSpec

import synflow_jax as sf
from synflow_jax.linen import from_linen
from tests.support.nets import holds_zeros

pytestmark = [
    pytest.mark.usefixtures("flax_promotes"),
    # Tiny networks at these ratios lose outputs, which the check says.
    pytest.mark.filterwarnings("ignore:check of the network"),
]
CLASSES = 4


class Small(nn.Module):
    """Two dense layers with dropout."""

    @nn.compact
    def __call__(self, x, train=False):
        """Return the logits."""
        x = nn.Dropout(0.1, deterministic=not train)(nn.relu(nn.Dense(16)(x)))
        return nn.Dense(CLASSES)(x)


class State(TrainState):
    """A TrainState that holds the masks a second time, for whoever looks for them there."""

    masks: dict


@pytest.fixture(scope="module")
def state():
    params, apply_fn = from_linen(Small(), Small().init(jax.random.key(0), jnp.ones((1, 6))))
    masks = sf.synflow(params, apply_fn, (6,), 8.0, rounds=3)
    with jax.numpy_dtype_promotion("standard"):
        tx = sf.keep_masks(optax.adamw(1e-2), masks)
        return State.create(apply_fn=Small().apply, params=params, tx=tx, masks=masks)


def step(state, batch, key=None, mean=lambda loss: loss):
    """Train for one step, with dropout where there is a key; `mean` goes over the devices."""
    x, labels = batch
    settings = {"train": True, "rngs": {"dropout": key}} if key is not None else {}

    def loss_fn(params):
        logits = state.apply_fn({"params": params}, x, **settings)
        return mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean())

    return state.apply_gradients(grads=jax.grad(loss_fn)(state.params))


def batch(examples=32):
    x = jax.random.normal(jax.random.key(1), (examples, 6))
    return x, jnp.arange(examples) % CLASSES


@pytest.mark.parametrize("wrapped", [jax.jit, nnx.jit], ids=["jit", "nnx.jit"])
def test_a_train_state_under_jit(state, wrapped):
    run, now = wrapped(step), state
    for i in range(3):
        now = run(now, batch(), jax.random.key(i))
    assert holds_zeros(now.params, state.masks)
    for masks in (now.masks, now.opt_state.masks):
        jax.tree.map(np.testing.assert_array_equal, masks, state.masks)


def test_three_seeds_at_once(state):
    keys = jax.random.split(jax.random.key(2), 3)
    apply_fn = from_linen(Small(), {"params": state.params})[1]

    def trained(key):
        params = Small().init(key, jnp.ones((1, 6)))["params"]
        masks = sf.synflow(params, apply_fn, (6,), 8.0, rounds=3)
        tx = sf.keep_masks(optax.adamw(1e-2), masks)
        mine = State.create(apply_fn=Small().apply, params=params, tx=tx, masks=masks)
        return step(step(mine, batch(), key), batch(), key).params, masks

    params, masks = jax.jit(jax.vmap(trained))(keys)
    assert holds_zeros(params, masks)
    for i, key in enumerate(keys):
        alone = sf.synflow(
            Small().init(key, jnp.ones((1, 6)))["params"], apply_fn, (6,), 8.0, rounds=3
        )
        jax.tree.map(lambda m, a, i=i: np.testing.assert_array_equal(m[i], a), masks, alone)


WHOLE, ROWS = PartitionSpec(), PartitionSpec("devices")


@pytest.fixture(scope="module")
def mesh():
    return jax.make_mesh((8,), ("devices",))


def test_every_device_finds_the_same_masks(state, mesh):
    """In a shard_map, each of eight devices prunes its own copy for itself."""
    params, apply_fn = from_linen(Small(), {"params": state.params})
    prune = lambda p: sf.synflow(p, apply_fn, (6,), 8.0, rounds=3)
    # Whole in, whole out: that the masks are the same on all devices is checked by their types.
    run = jax.shard_map(prune, mesh=mesh, in_specs=WHOLE, out_specs=WHOLE)
    for found, want in zip(*map(jax.tree.leaves, (jax.jit(run)(params), state.masks)), strict=True):
        assert len(found.addressable_shards) == 8
        assert all((np.asarray(s.data) == want).all() for s in found.addressable_shards)


def test_every_device_prunes_a_network_of_its_own(mesh):
    init = lambda key: Small().init(key, jnp.ones((1, 6)))["params"]
    keys = jax.random.split(jax.random.key(3), 8)
    params = jax.device_put(jax.vmap(init)(keys), NamedSharding(mesh, ROWS))
    apply_fn = from_linen(Small(), {"params": init(keys[0])})[1]
    prune = lambda p: sf.synflow(p, apply_fn, (6,), 8.0, rounds=3)
    run = jax.shard_map(jax.vmap(prune), mesh=mesh, in_specs=ROWS, out_specs=ROWS, check_vma=False)
    masks = jax.tree.map(np.asarray, jax.jit(run)(params))
    for i in (0, 7):
        alone = prune(init(keys[i]))
        jax.tree.map(lambda m, a, i=i: np.testing.assert_array_equal(m[i], a), masks, alone)


def test_data_parallel_training_by_shard_map(state, mesh):
    """Eight parts of a batch train as the whole batch does, and the zeros are on all devices."""
    mean = partial(jax.lax.pmean, axis_name="devices")

    @jax.jit
    @partial(jax.shard_map, mesh=mesh, in_specs=(WHOLE, ROWS, WHOLE), out_specs=WHOLE)
    def run(state, batch, key):
        return step(state, batch, key, mean)

    now, alone = jax.device_put(state, NamedSharding(mesh, WHOLE)), state
    for _ in range(3):
        now = run(now, jax.device_put(batch(64), NamedSharding(mesh, ROWS)), None)
        alone = jax.jit(step)(alone, batch(64))
    assert holds_zeros(now.params, state.masks)
    for found, want in zip(*map(jax.tree.leaves, (now.params, alone.params)), strict=True):
        # Means over eight parts, in float32.
        np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-6)
        parts = [np.asarray(shard.data) for shard in found.addressable_shards]
        assert len(parts) == 8
        assert all((part == parts[0]).all() for part in parts)
