"""The recipes of the page on training: zeros exact, kept weights those of the reference."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import synflow_jax as sf
from tests.support.pages import ROOT, run_blocks
from tests.support.recipes import kept_only, second_gradient, spread, trained

pytestmark = pytest.mark.usefixtures("flax_promotes")


@pytest.fixture(scope="module")
def page():
    """The page's variables, after its blocks."""
    jax.config.update("jax_disable_most_optimizations", True)
    return run_blocks(ROOT / "docs" / "howto" / "training.md", 8)


def plain_path(tx, vectors, loss, steps=10):
    """Train vectors of kept weights, and give the last of them."""
    path, _ = trained(tx, vectors, loss, steps)
    return jax.tree.map(lambda leaf: leaf[-1], path)


def check_end(params, vectors, masks, rtol=1e-4):
    """Exact zeros, and the kept weights of the reference: float32, compiled another way."""
    leaves = [jax.tree.leaves(tree) for tree in (params, vectors, masks)]
    for got, want, mask in zip(*leaves, strict=True):
        got, mask = np.asarray(got), np.asarray(mask)
        assert not got[~mask].any()
        np.testing.assert_allclose(got[mask], want, rtol=rtol, atol=rtol / 10)


def test_train_state_with_batch_norm(page):
    vectors, masks = kept_only(page["start"], page["masks"]), page["masks"]
    tx, stats = optax.adamw(1e-2), page["variables"]["batch_stats"]
    inner = tx.init(vectors)

    def loss(vectors, stats):
        variables = {"params": spread(vectors, masks), "batch_stats": stats}
        logits, new = page["model"].apply(variables, page["x"], train=True, mutable=["batch_stats"])
        chances = jax.nn.log_softmax(logits)[np.arange(64), page["labels"]]
        return -chances.mean(), new["batch_stats"]

    slope = jax.jit(jax.grad(loss, has_aux=True))
    for _ in range(10):
        slopes, stats = slope(vectors, stats)
        updates, inner = tx.update(slopes, inner, vectors)
        vectors = optax.apply_updates(vectors, updates)
    check_end(page["state"].params, vectors, masks)
    chex.assert_trees_all_close(page["state"].batch_stats, stats, rtol=1e-4, atol=1e-5)
    assert sf.report(page["start"], masks).kept == -(-(20 * 32 + 32 * 4) // 5)


def test_an_nnx_optimizer(page):
    """The reference is the Linen twin of the model, begun with its weights."""
    masks, weights = page["kept"], page["pruned"]
    names = {"Dense_0": "up", "BatchNorm_0": "norm", "Dense_1": "down"}

    def as_linen(state):
        pure = nnx.to_pure_dict(state)
        return {name: pure[other] for name, other in names.items()}

    masks, ours = as_linen(masks), as_linen(nnx.state(page["twin"], nnx.Param))
    stats = page["variables"]["batch_stats"]

    def loss(vectors):
        variables = {"params": spread(vectors, masks), "batch_stats": stats}
        logits, _ = page["model"].apply(variables, page["x"], train=True, mutable=["batch_stats"])
        return -jax.nn.log_softmax(logits)[np.arange(64), page["labels"]].mean()

    vectors = plain_path(optax.adamw(1e-2), kept_only(as_linen(weights), masks), loss)
    check_end(ours, vectors, masks)


def test_the_pages_sam_average_and_half_precision(page):
    masks, start = page["masks"], page["start"]
    vectors = kept_only(start, masks)

    def loss(vectors):
        return page["loss_fn"](spread(vectors, masks))

    def half(vectors):
        return page["scaled_loss"](spread(vectors, masks)) / page["SCALE"]

    path, _ = trained(optax.adamw(1e-2), vectors, loss, 10)
    check_end(page["trained"], jax.tree.map(lambda leaf: leaf[-1], path), masks)
    average = vectors
    for i in range(10):
        average = jax.tree.map(lambda a, p, i=i: 0.9 * a + 0.1 * p[i], average, path)
    check_end(page["average"], average, masks)
    ascent = optax.chain(optax.contrib.normalize(), optax.sgd(0.05))
    sam = optax.contrib.sam(optax.adamw(1e-2), ascent, opaque_mode=True)
    path, _ = trained(sam, vectors, loss, 10, second_gradient)
    check_end(page["sharp"], jax.tree.map(lambda leaf: leaf[-1], path), masks)
    check_end(page["mixed"], plain_path(optax.adamw(1e-2), vectors, half), masks)
    assert {leaf.dtype for leaf in jax.tree.leaves(page["mixed"])} == {jnp.dtype("float32")}


def test_adapters_train_beside_a_frozen_pruned_base(page):
    masks, both = page["both_masks"], page["both"]
    assert all(bool(m.all()) for m in masks["adapter"].values())
    assert sum(int(masks["base"][f"Dense_{i}"]["kernel"].sum()) for i in range(2)) == 154
    base = sf.apply_masks(page["params"], masks["base"])
    chex.assert_trees_all_equal(both["base"], base)

    def loss(adapter):
        return page["adapter_loss"]({"base": base, "adapter": adapter})

    adapter = plain_path(optax.adamw(1e-2), page["adapter"], loss)
    chex.assert_trees_all_close(both["adapter"], adapter, rtol=1e-4, atol=1e-5)


def test_fine_tuning_and_gradual_pruning(page):
    for state, masks, kept in (
        (page["tuned"], page["fewer"], 39),
        (page["slow"], page["final"], 39),
    ):
        chex.assert_trees_all_equal(state.params, sf.apply_masks(state.params, masks))
        assert sf.report(state.params, masks).kept == kept
    assert page["kept_weights"][13] == 640 > page["kept_weights"][14]
    assert (np.diff(page["kept_weights"]) <= 0).all()
    chex.assert_trees_all_equal(page["state"].opt_state.masks, page["masks"])
    moved = jax.tree.map(lambda a, b: (a != b).any(), page["tuned"].params, page["weights_of"])
    assert jax.tree.all(moved)


def test_gradual_pruning_in_an_nnx_optimizer():
    model = nnx.Linear(6, 8, rngs=nnx.Rngs(0))
    tx = sf.gradual_magnitude(optax.adam(1e-2), 4.0, end=4, every=2)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        slope = nnx.grad(lambda m: jnp.mean(jnp.square(m(jnp.ones((4, 6))) - 1.0)))(model)
        optimizer.update(model, slope)

    counts = []
    for _ in range(5):
        step(model, optimizer)
        counts.append(int((model.kernel[...] != 0).sum()))
    assert counts == [48, 17, 17, 12, 12]
