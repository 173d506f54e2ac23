"""Functions on small params: derivatives of one's own with whole numbers, and Python scalars."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import synflow_jax as sf


@jax.custom_jvp
def wave(h):
    """Return sin h and its sign as integers; the derivative is 7, so that it can be told apart."""
    return jnp.sin(h), jnp.sign(h).astype(jnp.int32)


@wave.defjvp
def _(primals, tangents):
    y, sign = wave(*primals)
    return (y, sign), (7 * tangents[0], np.zeros(sign.shape, jax.dtypes.float0))


@jax.custom_vjp
def gate(h):
    """Return 2h, and as integers where h is above 0."""
    return 2 * h, (h > 0).astype(jnp.int32)


gate.defvjp(lambda h: (gate(h), None), lambda _, g: (3 * g[0],))


def setting():
    rng = np.random.default_rng(0)
    sizes = {"u": (3, 6), "v": (6, 2)}
    params = {k: jnp.asarray(rng.standard_normal(s), jnp.float32) for k, s in sizes.items()}
    masks = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), params)
    masks["v"] = masks["v"].at[1].set(False)
    return params, masks


@pytest.mark.parametrize("act", [wave, gate])
def test_a_derivative_of_ones_own_beside_whole_numbers(act):
    def network(p, x):
        y, whole = act(x @ p["u"])
        return (y * whole.astype(y.dtype)) @ p["v"]

    params, masks = setting()
    small = sf.compact(params, masks, network, (3,))
    x = jnp.asarray(np.random.default_rng(1).standard_normal((4, 3)), jnp.float32)
    pruned = sf.apply_masks(params, masks)
    grad = jax.grad(lambda p: network(p, x).sum())(pruned)
    mine = jax.grad(lambda p: small.apply_fn(p, x).sum())(small.params)
    assert small.params["u"].shape == (3, 5)
    for name in params:
        np.testing.assert_allclose(mine[name], small.take(grad)[name], rtol=1e-5, atol=1e-6)


def test_python_scalars_take_the_dtype_of_what_they_meet():
    params, masks = setting()
    small = sf.compact(params, masks, lambda p, x: jax.nn.relu(x @ p["u"]) @ p["v"], (3,))
    half = small.wrap(lambda p, scale: p["u"].astype(jnp.bfloat16) * scale)
    assert half(small.params, 0.5).dtype == jnp.bfloat16
    assert half(small.params, jnp.bfloat16(0.5)).dtype == jnp.bfloat16
    with pytest.raises(ValueError, match="float32"):  # strict promotion, as outside
        half(small.params, jnp.float32(0.5))
    np.testing.assert_array_equal(half(small.params, 2), 2 * small.params["u"].astype(jnp.bfloat16))
