"""One network in five frameworks: the same masks; and masks under each of JAX's transforms."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import synflow_jax as sf
from tests.support.frameworks import CLASSES, FRAMEWORKS, SHAPE, plain, weights
from tests.support.nets import holds_zeros
from tests.support.pages import ROOT, run_blocks

pytestmark = pytest.mark.usefixtures("flax_promotes")
PAGE = ROOT / "docs" / "howto" / "frameworks.md"


def prunable(path, leaf):
    """Prune all but Haiku's offsets, whose axes are as many as the image's."""
    return sf.plan.is_prunable(path, leaf) and not path.endswith("/offset")


def labelled():
    rng = np.random.default_rng(1)
    return [(jnp.asarray(rng.standard_normal((6, *SHAPE))), jnp.arange(6) % CLASSES)]


def masks_of(made):
    """Prune by flow, by loss and by size; bring kernels to one layout."""
    params, apply_fn, kernels = made
    methods = {
        "synflow": sf.synflow(params, apply_fn, SHAPE, 4.0, rounds=3, prunable=prunable),
        "snip": sf.snip(params, sf.cross_entropy(apply_fn), labelled(), 4.0, prunable=prunable),
        "magnitude": sf.magnitude(params, 4.0, prunable=prunable),
    }
    return {n: [np.array(kernel) for kernel in kernels(masks)] for n, masks in methods.items()}


@pytest.fixture(scope="module")
def expected():
    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
        return masks_of(plain(weights()))


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_every_framework_gives_the_masks_of_the_network_written_out(name, expected, x64):
    params, apply_fn, _ = made = FRAMEWORKS[name](weights())
    wanted, network, _ = plain(weights())
    x = labelled()[0][0]
    # The same sums in float64, in another order.
    np.testing.assert_allclose(apply_fn(params, x), network(wanted, x), rtol=1e-10, atol=1e-12)
    for method, kernels in masks_of(made).items():
        for found, want in zip(kernels, expected[method], strict=True):
            np.testing.assert_array_equal(found, want, err_msg=method)
        assert sum(int(kernel.sum()) for kernel in kernels) == 47  # ⌈186/4⌉


def test_equal_equinox_models_share_a_program():
    calls = []

    def evaluate(static, params, x):
        calls.append(1)
        return jax.vmap(eqx.combine(params, static))(x)

    counts = []
    for seed in range(2):
        model = eqx.nn.MLP(5, 2, 7, 1, key=jax.random.key(seed))
        params, static = eqx.partition(model, eqx.is_inexact_array)
        calls.clear()
        masks = sf.synflow(params, jax.tree_util.Partial(evaluate, static), (5,), 7.0, rounds=3)
        counts.append(len(calls))
        assert sum(int(layer.weight.sum()) for layer in masks.layers) == 7
    assert counts == [1, 0]


def test_the_page_runs():
    scope = run_blocks(PAGE, 11)
    state = scope["state"]
    keras_weights = {one.path: np.asarray(one.value) for one in scope["model"].trainable_variables}
    pairs = {
        "linen": (state.params, scope["masks"]),
        "back": (scope["trained"]["params"], state.opt_state.masks),
        "nnx": (nnx.state(scope["twin"], nnx.Param), scope["kept"]),
        "equinox": (scope["arrays"], scope["chosen"]),
        "haiku": (scope["tree"], scope["held"]),
        "keras": (keras_weights, scope["keras_masks"]),
        "shard_map": (scope["after"], scope["same"]),
    }
    for name, (params, masks) in pairs.items():
        assert holds_zeros(params, masks), name
    assert scope["logits"].shape == (4, 10)
    assert sum(int(mask.sum()) for mask in scope["sparse"].values()) == 150
    kernels = [t["kernel"] for name, t in scope["two_masks"].items() if name.startswith("Dense")]
    assert sum(int(kernel.sum()) for kernel in kernels) == 64  # ⌈(80 + 160 + 16)/4⌉
    keras_kernels = [mask for path, mask in scope["keras_masks"].items() if "kernel" in path]
    assert sum(int(mask.sum()) for mask in keras_kernels) == 60  # ⌈(3·3·3·16 + 16·10)/10⌉
    thin = scope["small"].params["conv"]["kernel"]
    assert thin.shape == (3, 3, 3, 4)  # 16 / 4 channels
    assert scope["statistics"]["norm"]["mean"].shape == (4,)
    assert float(scope["adjusted"].inner_state.hyperparams["learning_rate"]) == np.float32(1e-4)
