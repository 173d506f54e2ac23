"""Kept blocks multiply as the pruned matrix does, and so does the benchmark's Pallas kernel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import synflow_jax as sf
from benchmarks.sparse.block_sparse import pallas_product

# Sums of a hundred float32 products, in another order.
NEAR = {"rtol": 1e-5, "atol": 1e-5}


def drawn(shape, block, density, seed=0):
    """A matrix, and a mask of whole blocks."""
    rng = np.random.default_rng(seed)
    w = rng.standard_normal(shape).astype(np.float32)
    down, across = (-(-n // b) for n, b in zip(shape, block, strict=True))
    mask = np.kron(rng.random((down, across)) < density, np.ones(block, bool))
    return w, mask[: shape[0], : shape[1]]


@pytest.mark.parametrize(
    ("shape", "block", "density"),
    [
        ((32, 48), (8, 8), 0.4),
        ((30, 50), (8, 8), 0.4),  # blocks cut short at both ends
        ((30, 50), (7, 16), 0.4),
        ((5, 50), (8, 8), 0.6),  # a matrix lower than a block
        ((32, 48), (8, 8), 0.0),
        ((32, 48), (1, 1), 0.1),
    ],
)
def test_the_product_is_that_of_the_pruned_matrix(shape, block, density):
    w, mask = drawn(shape, block, density)
    (kept,) = sf.files.to_blocks([w], [mask], sf.plan.blocks(*block))
    assert isinstance(kept, sf.files.BlockSparse)
    np.testing.assert_array_equal(kept.todense(), w * mask)
    for lead in ((), (3,), (2, 3)):
        x = np.random.default_rng(1).standard_normal((*lead, shape[0])).astype(np.float32)
        for one in (x, jnp.asarray(x)):  # NumPy on the left, too
            product = one @ kept
            assert product.shape == (*lead, shape[1])
            np.testing.assert_allclose(product, x @ (w * mask), **NEAR)


def test_only_kept_blocks_are_there():
    w, mask = drawn((32, 48), (8, 8), 0.3)
    (kept,) = sf.files.to_blocks([w], [mask], sf.plan.blocks(8))
    assert kept.values.shape == (mask.sum() // 64, 8, 8)
    assert kept.values.size == mask.sum()
    cost = jax.jit(lambda x, w: x @ w).lower(jnp.ones((16, 32)), kept).compile().cost_analysis()
    products = 2 * 16 * mask.sum()
    assert products <= cost["flops"] < 2 * 16 * mask.size / 2  # and the sums by column
    # A block of which one weight is kept is there whole, the others at 0.
    mask[:8, :8] = np.arange(64).reshape(8, 8) == 5
    (kept,) = sf.files.to_blocks([w], [mask], sf.plan.blocks(8))
    np.testing.assert_array_equal(kept.todense(), w * mask)


def test_gradients_by_input_and_by_kept_weights_are_those_of_the_pruned_matrix():
    w, mask = drawn((24, 40), (8, 8), 0.4)
    (kept,) = sf.files.to_blocks([w], [mask], sf.plan.blocks(8))
    rng = np.random.default_rng(2)
    x, y = (jnp.asarray(rng.standard_normal(s), jnp.float32) for s in ((5, 24), (5, 40)))
    loss = jax.jit(jax.grad(lambda x, w: jnp.sum((x @ w) * y), (0, 1), allow_int=True))
    by_x, by_kept = loss(x, kept)
    np.testing.assert_allclose(by_x, y @ (w * mask).T, **NEAR)
    there = np.zeros((3, 5, 8, 8), np.float32)
    there[kept.rows, kept.columns] = by_kept.values
    there = there.swapaxes(1, 2).reshape(24, 40)
    np.testing.assert_allclose(there, np.where(mask, x.T @ y, 0), **NEAR)


def test_a_network_runs_on_blocks_as_it_does_on_arrays():
    rng = np.random.default_rng(0)
    params = {"in": rng.standard_normal((16, 64)), "out": rng.standard_normal((64, 4))}
    params = {name: jnp.asarray(leaf, jnp.float32) for name, leaf in params.items()}
    params |= {"bias": jnp.ones(64), "kernel": jnp.ones((3, 3, 2, 2)), "steps": jnp.arange(3)}

    def network(p, x):
        return jax.nn.relu(x @ p["in"] + p["bias"][None]) @ p["out"]

    inner = lambda path, leaf: path in ("in", "kernel")
    masks = sf.magnitude(
        params, rho=4, pattern=sf.plan.blocks(8), prunable=inner, scope=sf.layerwise
    )
    sparse = sf.files.to_blocks(params, masks, sf.plan.blocks(8))
    assert sparse["in"].values.shape == (4, 8, 8)
    pruned = sf.apply_masks(params, masks)
    for name in ("out", "bias", "kernel", "steps"):  # whole, of other axes, or no weights
        np.testing.assert_array_equal(sparse[name], pruned[name])
    x = jnp.asarray(rng.standard_normal((3, 16)), jnp.float32)
    np.testing.assert_allclose(jax.jit(network)(sparse, x), network(pruned, x), **NEAR)


@pytest.mark.parametrize("batch", [1, 16, 21])
def test_the_kernel_multiplies_as_plain_jax_does(batch):
    w, mask = drawn((64, 96), (16, 16), 0.4)
    mask[:, 32:48] = False  # a column without blocks
    (kept,) = sf.files.to_blocks([w], [mask], sf.plan.blocks(16))
    x = jnp.asarray(np.random.default_rng(1).standard_normal((batch, 64)), jnp.float32)
    np.testing.assert_allclose(pallas_product(x, kept, interpret=True), x @ (w * mask), **NEAR)


def test_the_kernel_becomes_a_program_for_gpus():
    w, mask = drawn((64, 128), (32, 32), 0.4)
    (kept,) = sf.files.to_blocks([w], [mask], sf.plan.blocks(32))
    traced = pallas_product.trace(jnp.ones((16, 64)), kept)
    assert "triton" in traced.lower(lowering_platforms=("cuda",)).as_text()
