"""Overflow-free evaluation, rule by rule, at values far outside float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from synflow_jax.scaled import log2, scaled

WIDE = jnp.full((16, 16), 0.5)  # one product with it multiplies the row sum by 8
X = jnp.arange(1.0, 17.0).reshape(1, 16)


def deep(x, layers=60):
    """Grow x by 2^180 or so, past float32, in as many products."""
    for _ in range(layers):
        x = x @ WIDE
    return x


def moved(fn):
    """Test fn at a value far outside float32: fn(2^186·x̄·1) where all entries are equal."""

    def network(x):
        return fn(deep(x), x)

    return network


GROWN = 3.0 * 60 + np.log2(8.5)  # log2 of each entry of deep(X): mean 8.5, times 16·0.5 a layer


def value_log2(result):
    return np.log2(np.abs(np.asarray(result.mantissa, np.float64))) + float(result.exponent)


BY_HAND = {
    "add": (lambda y, x: y + y, GROWN + 1),
    "sub": (lambda y, x: y - 0.5 * y, GROWN - 1),
    "add_small": (lambda y, x: y + x, GROWN),
    "mul": (lambda y, x: y * y, 2 * GROWN),
    "div": (lambda y, x: 1.0 / y, -GROWN),
    "ratio": (lambda y, x: y / y, 0.0),
    "square": (lambda y, x: jnp.square(y), 2 * GROWN),
    "cube": (lambda y, x: y**3, 3 * GROWN),
    "inverse_square": (lambda y, x: y**-2, -2 * GROWN),
    "sqrt": (lambda y, x: jnp.sqrt(y), GROWN / 2),
    "rsqrt": (lambda y, x: lax.rsqrt(4 * y), -GROWN / 2 - 1),
    "abs_neg": (lambda y, x: jnp.abs(-y), GROWN),
    "max": (lambda y, x: jnp.maximum(y, 1e30), GROWN),
    "min": (lambda y, x: jnp.minimum(y, 4.0), 2.0),
    "relu": (lambda y, x: jax.nn.relu(y), GROWN),
    "relu6": (lambda y, x: jax.nn.relu6(y), np.log2(6)),
    "leaky": (lambda y, x: jax.nn.leaky_relu(-y, 0.25), GROWN - 2),
    "clip": (lambda y, x: jnp.clip(y, 0.0, 8.0), 3.0),
    "where": (lambda y, x: jnp.where(y > 1e38, y, 0.0), GROWN),
    "where_inf": (lambda y, x: jnp.where(y > 0, y, -jnp.inf), GROWN),
    "sum": (lambda y, x: y.sum(), GROWN + 4),
    "mean": (lambda y, x: y.mean(), GROWN),
    "cumsum": (lambda y, x: jnp.cumsum(y, axis=1)[:, -1], GROWN + 4),
    "concatenate": (lambda y, x: jnp.concatenate([y, x], 1)[:, :16], GROWN),
    "stack_small": (
        lambda y, x: jnp.concatenate([y * 2.0**-93 * 2.0**-93, x], 1)[:, -16:].sum(),
        np.log2(136),
    ),
    "pad": (lambda y, x: jnp.pad(y, ((0, 0), (1, 1)))[:, 1], GROWN),
    "pad_inf": (lambda y, x: jnp.pad(y, ((0, 0), (1, 1)), constant_values=-jnp.inf).max(), GROWN),
    "stack": (lambda y, x: jnp.stack([y, 2 * y]).sum(0), GROWN + np.log2(3)),
    "stack_with_small": (lambda y, x: jnp.stack([y, x], 1)[:, 0], GROWN),
    "unstack": (lambda y, x: jnp.unstack(y, axis=1)[3], GROWN),
    "tile": (lambda y, x: jnp.tile(y, (2, 3)), GROWN),
    "rfft": (lambda y, x: jnp.fft.rfft(y)[:, 0].real, GROWN + 4),
    "fft_and_back": (lambda y, x: jnp.fft.ifft(jnp.fft.fft(lax.complex(y, y))).imag, GROWN),
    "rfft_and_back": (lambda y, x: jnp.fft.irfft(jnp.fft.rfft(y)), GROWN),
    "complex": (lambda y, x: jnp.abs(lax.complex(3 * y, 4 * y)), GROWN + np.log2(5)),
    "complex_small": (lambda y, x: jnp.conj(lax.complex(y, x)).real, GROWN),
    "complex_product": (lambda y, x: (lax.complex(y, y) * (1 + 1j)).imag, GROWN + 1),
    "complex_squares": (lambda y, x: (lax.complex(y, y) ** 2).imag, 2 * GROWN + 1),
    "complex_dot": (
        lambda y, x: (lax.complex(y, y) @ WIDE.astype(jnp.complex64)).imag,
        GROWN + 3,
    ),
    "sort": (lambda y, x: jnp.sort(y, axis=1), GROWN),
    "top_k": (lambda y, x: lax.top_k(y, 2)[0], GROWN),
    "gather": (lambda y, x: y[0, jnp.array([1, 2])], GROWN),
    "update": (lambda y, x: lax.dynamic_update_slice(y, x[:, :2], (0, 0))[:, 5], GROWN),
    "scatter_add": (lambda y, x: y.at[0, 3].add(1.0)[:, 3], GROWN),
    "dot_two_signals": (lambda y, x: y @ y.T, 2 * GROWN + 4),
    "log": (lambda y, x: jnp.log(y), np.log2(GROWN * np.log(2))),
    "tanh": (lambda y, x: jnp.tanh(y), 0.0),
    "sigmoid": (lambda y, x: y * jax.nn.sigmoid(y), GROWN),
    "gelu": (lambda y, x: jax.nn.gelu(y), GROWN),
    "softmax": (lambda y, x: jax.nn.softmax(y, axis=1), -4.0),
    "layer_norm": (lambda y, x: y * lax.rsqrt(jnp.mean(y * y, keepdims=True) + 1e-6), 0.0),
    "to_bfloat16": (lambda y, x: y.astype(jnp.bfloat16).astype(jnp.float32) * 1.0, GROWN),
    "to_float16": (lambda y, x: y.astype(jnp.float16).astype(jnp.float32) * 1.0, GROWN),
    "stop_gradient": (lambda y, x: lax.stop_gradient(y), GROWN),
    "remat": (lambda y, x: jax.checkpoint(lambda z: z @ WIDE)(y), GROWN + 3),
    "jit": (lambda y, x: jax.jit(lambda z: z @ WIDE)(y), GROWN + 3),
    "cond": (lambda y, x: lax.cond(y[0, 0] > 1e38, lambda z: z @ WIDE, lambda z: z, y), GROWN + 3),
    "scan": (lambda y, x: lax.scan(lambda c, _: (c @ WIDE, None), y, None, 50)[0], GROWN + 150),
    "scan_rows": (
        lambda y, x: lax.scan(lambda c, _: (c @ WIDE, c.sum()), x, None, 60)[1][-1],
        GROWN - 3 + 4,
    ),
    "while": (
        lambda y, x: lax.while_loop(lambda c: c[0] < 9, lambda c: (c[0] + 1, c[1] @ WIDE), (0, y))[
            1
        ],
        GROWN + 27,
    ),
    "fori_unused": (lambda y, x: lax.fori_loop(0, 3, lambda i, c: c, y), GROWN),
}  # fmt: skip


@pytest.mark.parametrize("name", BY_HAND)
def test_each_family_at_a_value_past_float32(name):
    fn, wanted = BY_HAND[name]
    found = value_log2(scaled(moved(fn))(X))
    # 60 products, each rounded at 6e-8; half precision rounds at 2^-9.
    tolerance = 6e-3 if "float16" in name else 2e-5
    np.testing.assert_allclose(found, np.full(found.shape, wanted), atol=tolerance)


@pytest.mark.parametrize("name", ["add_small", "layer_norm", "relu", "scan", "softmax", "cond"])
def test_underflow_is_the_mirror_image(name):
    """The same network fed and weighted the other way: every layer divides by 8."""
    small = {"add_small": 0.0, "layer_norm": 0.0, "softmax": -4.0}
    tiny = jnp.full((16, 16), 1 / 128)

    def network(x):
        y = x
        for _ in range(60):
            y = y @ tiny
        if name == "scan":
            return lax.scan(lambda c, _: (c @ tiny, None), y, None, 50)[0]
        if name == "cond":
            return lax.cond(y[0, 0] < 1, lambda z: z @ tiny, lambda z: z, y)
        if name == "layer_norm":
            return y * lax.rsqrt(jnp.mean(y * y, keepdims=True))
        if name == "add_small":
            return (y + x)[:, :1]
        return BY_HAND[name][0](y, x)

    shrunk = -180 + np.log2(8.5)
    wanted = small.get(name, shrunk) - {"scan": 150, "cond": 3}.get(name, 0)
    found = value_log2(scaled(network)(X))
    np.testing.assert_allclose(found, np.full(found.shape, wanted), atol=2e-5)


def test_early_skips_meet_late_signals():
    """Long skips from before the first rescaling; dead branches must not set the exponent."""

    def net(x, gate):
        late = deep(x, 90) * gate
        return jnp.concatenate([late, x], 1).sum()

    assert float(log2(scaled(net)(X, jnp.float32(0)))) == pytest.approx(np.log2(136), abs=1e-6)
    alive = float(log2(scaled(net)(X, jnp.float32(1))))
    assert alive == pytest.approx(270 + np.log2(136), abs=1e-4)


@jax.custom_vjp
def own_product(x, w):
    return x @ w


own_product.defvjp(lambda x, w: (x @ w, (x, w)), lambda r, g: (g @ r[1].T, r[0].T @ g))


def test_growth_inside_custom_derivatives_counts():
    def network(x):
        for _ in range(60):
            x = jax.nn.relu(own_product(x, WIDE))
        return x

    np.testing.assert_allclose(value_log2(scaled(network)(X)), GROWN, atol=2e-5)
    exponent, slope = jax.value_and_grad(lambda x: scaled(network)(x).mantissa.sum())(X)
    assert bool(jnp.isfinite(slope).all()) and float(exponent) > 0


def test_short_scans_one_after_another_add_up():
    """Each has room by itself; together they have not."""

    def network(x):
        for _ in range(6):
            x = lax.scan(lambda c, _: (c @ WIDE, None), x, None, 10)[0]
        return x

    np.testing.assert_allclose(value_log2(scaled(network)(X)), GROWN, atol=2e-5)


@pytest.mark.parametrize(
    "fn",
    [
        lambda y, x: y * (jnp.arange(16) ** 2).astype(jnp.float32)[None],
        lambda y, x: jnp.concatenate([x[:, :0], y], 1),
        lambda y, x: lax.associative_scan(jnp.add, y[0]),
    ],
)
def test_whole_numbers_and_empty_arrays(fn):
    wide = float(value_log2(scaled(moved(lambda y, x: fn(y, x).sum()))(X)))
    small = float(fn(jnp.ones((1, 16)), X).sum())
    assert wide == pytest.approx(GROWN + np.log2(small), abs=2e-5)


def test_gates_do_not_set_a_floor():
    """The 1 in 1 + tanh(x) is added to a number near 0, not to the signal."""

    def network(x):
        for _ in range(60):
            x = x @ jnp.full((16, 16), 1 / 128, x.dtype)
            x = x * (0.5 + 0.5 * jnp.tanh(x))
        return x

    with jax.enable_x64(True):
        wide = float(jnp.log2(network(X.astype(jnp.float64))[0, 0]))
    assert wide < -200
    np.testing.assert_allclose(value_log2(scaled(network)(X)), wide, atol=1e-4)
