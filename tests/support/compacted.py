"""What the tests of compact share: weights and masks drawn, and the check that nothing changed."""

import jax
import jax.numpy as jnp
import numpy as np

import synflow_jax as sf

# A sum of a few dozen float32 products, in another order.
NEAR = {"rtol": 1e-5, "atol": 1e-6}


def draw(seed, shapes):
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.standard_normal(s), jnp.float32) for name, s in shapes.items()}


def masks_of(seed, params, density):
    rng = np.random.default_rng(seed)
    return {
        name: jnp.asarray(rng.random(leaf.shape) < density if leaf.ndim > 1 else leaf == leaf)
        for name, leaf in params.items()
    }


def same(params, masks, network, shape, batch=3):
    """Check the function and its gradient on a batch, and give the compact network."""
    small = sf.compact(params, masks, network, shape)
    pruned = sf.apply_masks(params, masks)
    x = jax.random.normal(jax.random.key(7), (batch, *shape))
    want, got = network(pruned, x), small.apply_fn(small.params, x)
    np.testing.assert_allclose(got, want, **NEAR)
    ones = jax.random.normal(jax.random.key(8), want.shape)
    grad = jax.grad(lambda p: jnp.sum(network(p, x) * ones))(pruned)
    mine = jax.grad(lambda p: jnp.sum(small.apply_fn(p, x) * ones))(small.params)
    pairs = zip(*map(jax.tree.leaves, (small.take(grad), mine)), strict=True)
    for a, b in pairs:
        np.testing.assert_allclose(
            a, b, rtol=1e-4, atol=1e-5 * (1 + float(jnp.abs(a).max(initial=0)))
        )
    return small


def shapes(small):
    return {name: leaf.shape for name, leaf in small.params.items()}
