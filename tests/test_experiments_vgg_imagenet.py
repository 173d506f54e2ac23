"""ImageNet's VGG, and what the committed results of the figures about it must agree with."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from experiments import fig2, fig3
from experiments.common import rows as store
from experiments.common.initial import Config, Start, network_order
from experiments.common.models.vgg_imagenet import VGGImageNet

RESULTS = Path(fig2.__file__).parent / "results"


@pytest.fixture(scope="module")
def start():
    return Start(Config(smoke=True))


def test_imagenets_vgg_has_the_weights_of_the_paper():
    shapes = jax.eval_shape(
        lambda: VGGImageNet(1000).init(jax.random.key(0), jnp.ones((1, 224, 224, 3)))
    )["params"]
    flat = traverse_util.flatten_dict(shapes, sep="/")
    kernels = [flat[path] for path in network_order(flat) if path.endswith("kernel")]
    assert sum(kernel.size for kernel in kernels) == 143_652_544
    assert len(kernels) == 19
    assert [kernel.shape for kernel in kernels[-3:]] == [(25088, 4096), (4096, 4096), (4096, 1000)]
    units = [kernel.shape[-1] for kernel in kernels[:15]]
    assert sum(units) == 4992


@pytest.mark.parametrize(
    ("depth", "count"), [(11, 132_851_392), (13, 133_035_712), (16, 138_344_128)]
)
def test_shallower_vggs_have_torchvisions_counts(depth, count):
    # torchvision's parameters, less the biases of the convolutions and of 4096 + 4096 + 1000 units.
    model = VGGImageNet(1000, depth=depth)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.ones((1, 224, 224, 3))))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes) if leaf.ndim > 1) == count


def test_initialisation_is_torchvisions(start):
    flat = traverse_util.flatten_dict(start.params, sep="/")
    # Deviations of 9,216 and 928 draws are known to 0.8 and 2.4 percent.
    dense = [leaf.ravel() for path, leaf in flat.items() if path.startswith("Dense")]
    kernels = np.concatenate([leaf for leaf in dense if leaf.any()])
    np.testing.assert_allclose(jnp.std(flat["Conv_7/kernel"]), math.sqrt(2 / (9 * 32)), rtol=0.03)
    np.testing.assert_allclose(np.std(kernels), 0.01, rtol=0.1)
    assert not any(leaf.any() for path, leaf in flat.items() if path.endswith("bias"))


def test_dropout_is_on_in_training_only(start):
    model, x = start.config.model, jnp.ones((2, 32, 32, 3))
    variables = {"params": start.params}
    still = model.apply(variables, x)
    np.testing.assert_array_equal(still, start.apply_fn(start.params, x))
    rngs = {"dropout": jax.random.key(1)}
    assert not jnp.allclose(still, model.apply(variables, x, train=True, rngs=rngs))


def test_images_that_the_pools_would_empty_are_refused():
    with pytest.raises(ValueError, match="images of 32×32 or more, got \\(31, 40\\)"):
        VGGImageNet(10).init(jax.random.key(0), jnp.ones((1, 31, 40, 3)))


def committed(name):
    return store.load(RESULTS / f"{name}.json")[1]


def test_the_committed_figure_3_has_every_unit():
    for row in committed("fig3"):
        into, out_of = (np.concatenate(row[name]) for name in ("into", "out_of"))
        assert into.shape == out_of.shape == (4992,)
        gaps = fig3.relative_gap(into, out_of)
        # Of sums with four digits.
        assert np.median(gaps) == pytest.approx(row["median_gap"], rel=0.05, abs=1e-3)


def test_the_committed_magnitudes_are_those_of_the_initialisation():
    row = next(row for row in committed("fig4") if row["method"] == "magnitude")
    channels = np.repeat([64, 128, 256, 512], [2, 2, 4, 8])
    deviations = np.concatenate([np.sqrt(2 / (9 * channels)), [0.01] * 3])
    means = np.array([*row["mean_per_layer"].values()])
    assert sum(row["prunable_per_layer"].values()) == 143_652_544
    # Four standard errors of a mean of |N(0, 1)|, relative to it: √(π/2 − 1) of one draw.
    errors = 4 * math.sqrt(math.pi / 2 - 1) / np.sqrt([*row["prunable_per_layer"].values()])
    assert (np.abs(means / (math.sqrt(2 / math.pi) * deviations) - 1) < errors).all()


def test_the_committed_synflow_carries_the_same_flow_through_every_layer():
    row = next(row for row in committed("fig4") if row["method"] == "synflow")
    pairs = zip(row["mean_per_layer"].values(), row["prunable_per_layer"].values(), strict=True)
    flows = np.array([mean * size for mean, size in pairs])
    np.testing.assert_allclose(flows, flows.mean(), rtol=1e-5)


def test_the_committed_masks_keep_what_was_asked():
    for row in committed("fig2"):
        sizes, kept = (np.array([*row[f"{x}_per_layer"].values()]) for x in ("prunable", "kept"))
        assert kept.sum() == -(-143_652_544 // row["rho"])
        if row["method"] == "random":
            # Within five deviations of a binomial count, and what a count of 1 may be off.
            spread = 5 * np.sqrt(sizes / row["rho"]) + 5
            assert (np.abs(kept - sizes / row["rho"]) < spread).all()
