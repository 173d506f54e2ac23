"""Overflow-free evaluation: equal to plain JAX where that is finite, right where it is not."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from nets import CONV_SHAPE, mlp, mlp_params, residual, residual_params

import synflow_jax as sf
from synflow_jax import linen
from synflow_jax.scaled import log2, scaled, unscale

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


def both_gradients(fn, *args):
    plain = jax.grad(fn)(*args)
    ours, exponent = jax.grad(lambda *a: tuple(scaled(fn)(*a)), has_aux=True)(*args)
    return plain, jax.tree.map(lambda g: unscale(g, exponent), ours), exponent


def flow(params, depth):
    """Six layers a block, so that plain float32 stays finite and scaled rescales."""
    x = jnp.ones((1, 5))
    for i in range(depth):
        x = x @ params["in" if i == 0 else "inner"]
        x = jax.nn.relu(x + params["bias"][None])
    return (x @ params["out"]).sum()


def chain_params(bias, dtype=jnp.float32):
    rng = np.random.default_rng(0)
    shapes = {"in": (5, 24), "inner": (24, 24), "out": (24, 3), "bias": (24,)}
    found = {k: jnp.asarray(np.abs(rng.standard_normal(s)) * 0.3, dtype) for k, s in shapes.items()}
    return found | {"bias": bias * found["bias"]}


@pytest.mark.parametrize("bias", [0.0, 1.0])
def test_gradients_of_a_chain_are_those_of_plain_jax(bias):
    plain, ours, exponent = both_gradients(lambda p: flow(p, 25), chain_params(bias))
    assert int(exponent) > 0  # it did rescale
    if not bias:
        jax.tree.map(np.testing.assert_array_equal, plain, ours)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), plain, ours)


def test_sources_that_outweigh_a_dying_signal():
    """At e < −30 a bias decides; where all biases are 0 the signal goes on below float32."""
    for bias, wanted in ((1.0, None), (0.0, 1)):
        params = chain_params(bias) | {"inner": jnp.full((24, 24), 2.0**-12)}
        with jax.enable_x64(True):
            wide = jax.tree.map(lambda p: p.astype(jnp.float64), params)
            truth = float(jnp.log2(flow(wide, 40)))
        found = scaled(lambda p: flow(p, 40))(params)
        assert float(log2(found)) == pytest.approx(truth, rel=1e-6)
        assert wanted is None or truth < -260


def test_early_skips_meet_late_signals():
    """Long skips from before the first rescaling; dead branches must not set the exponent."""

    def net(x, gate):
        late = deep(x, 90) * gate
        return jnp.concatenate([late, x], 1).sum()

    assert float(log2(scaled(net)(X, jnp.float32(0)))) == pytest.approx(np.log2(136), abs=1e-6)
    alive = float(log2(scaled(net)(X, jnp.float32(1))))
    assert alive == pytest.approx(270 + np.log2(136), abs=1e-4)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_a_network_that_computes_in_half_precision(dtype):
    """Half-precision layers between float32 params and float32 outputs."""

    def net(params):
        x = jnp.ones((1, 5), dtype)
        for i in range(40):
            x = jax.nn.relu(x @ params["in" if i == 0 else "inner"].astype(dtype))
        return (x @ params["out"].astype(dtype)).astype(jnp.float32).sum()

    params = chain_params(0.0)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda p: p.astype(jnp.float64), params)
        truth = float(jnp.log2(flow(wide, 40)))
    # 40 roundings at 2^-8 (bfloat16) or 2^-11.
    assert float(log2(scaled(net)(params))) == pytest.approx(truth, abs=0.25)
    grads = jax.grad(lambda p: scaled(net)(p).mantissa)(params)
    assert all(bool(jnp.isfinite(g).all()) for g in jax.tree.leaves(grads))


def test_outputs_keep_their_tree_and_what_is_no_float():
    found = scaled(lambda x: {"y": x * 2, "n": jnp.argmax(x), "b": x > 1})(jnp.array([1.0, 3.0]))
    assert found["y"].mantissa.tolist() == [2.0, 6.0]
    assert (int(found["n"]), found["b"].tolist()) == (1, [False, True])


def test_extreme_weights_are_looked_at():
    params = jax.tree.map(lambda leaf: leaf * 1e20, mlp_params(0, bias=0.0))
    usual = mlp_params(0, bias=0.0)
    found = sf.log2_flow(params, mlp, (5,))
    shift = 3 * np.log2(1e20)
    assert float(found) == pytest.approx(float(sf.log2_flow(usual, mlp, (5,))) + shift, rel=1e-6)
    small = jax.tree.map(lambda leaf: leaf * 2.0**-70, usual)
    masks, plain = (sf.synflow(p, mlp, (5,), 4.0, rounds=5) for p in (small, usual))
    jax.tree.map(np.testing.assert_array_equal, masks, plain)


def test_powers_of_two_per_layer_leave_scores_bitwise_and_masks_equal():
    """P5: 2^k per layer of a chain moves R by the sum of the k and nothing else."""
    usual = mlp_params(0, widths=(5, *(9,) * 12, 4), bias=0.0)
    ks = {f"layer{i}": 7 - 3 * (i % 5) for i in range(13)}
    other = {k: {n: v * 2.0 ** ks[k] for n, v in layer.items()} for k, layer in usual.items()}
    saliency = sf.synflow_saliency(mlp, (5,))
    keep = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), usual)
    one, two = saliency(usual, keep), saliency(other, keep)
    ratio = 2.0 ** sum(ks.values())
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a * ratio, b), one, two)


def test_batch_norm_of_linen_in_a_deep_stack():
    """Means and biases of 0 stay neutral; trained ones join as they are."""

    class Deep(nn.Module):
        @nn.compact
        def __call__(self, x):
            for _ in range(40):
                y = nn.BatchNorm(use_running_average=True)(nn.Dense(16, use_bias=False)(x))
                x = x + nn.relu(y) if x.shape == y.shape else nn.relu(y)
            return nn.Dense(3)(x)

    model = Deep()
    variables = model.init(jax.random.key(0), jnp.ones((1, 5)))
    rng = np.random.default_rng(0)
    for mean in (0.0, 0.02):
        moved_by = jnp.asarray(-mean * rng.uniform(size=16), jnp.float32)
        stats = {k: {**norm, "mean": moved_by} for k, norm in variables["batch_stats"].items()}
        params, fn = linen.from_linen(model, {**variables, "batch_stats": stats})
        found = float(sf.log2_flow(params, fn, (5,)))
        with jax.enable_x64(True):
            wide, stats64 = jax.tree.map(lambda p: p.astype(jnp.float64), (params, stats))
            p64, fn64 = linen.from_linen(model, {"params": wide, "batch_stats": stats64})
            x = jnp.ones((1, 5), jnp.float64)
            truth = float(jnp.log2(fn64(jax.tree.map(jnp.abs, p64), x).sum()))
        assert found == pytest.approx(truth, rel=1e-6)


def test_the_compiled_program_grows_little():
    """Residual nets must not pay for exponents in every addition."""
    params = residual_params(0)

    def plain(p):
        return residual(p, jnp.ones((1, *CONV_SHAPE))).sum()

    def ours(p):
        return scaled(plain)(p).mantissa

    sizes = [
        jax.jit(jax.grad(fn)).lower(params).compile().as_text().count(" = ") for fn in (plain, ours)
    ]
    assert sizes[1] <= 1.1 * sizes[0]  # too shallow to rescale: the same program


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


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"sizes must have one number a leaf, 1, got 2"):
        scaled(lambda x: x, (1.0, 2.0))(X)
