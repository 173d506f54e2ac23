"""Overflow-free evaluation: equal to plain JAX where that is finite, right where it is not."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import synflow_jax as sf
from synflow_jax import linen
from synflow_jax.scaled import log2, scaled, unscale
from tests.support.nets import CONV_SHAPE, mlp, mlp_params, residual, residual_params


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


def test_a_network_that_prints_prints_values():
    seen = []

    def watched(x):
        for layer in range(30):
            x = x @ jnp.ones((64, 64))
            if layer == 14:
                jax.debug.callback(lambda y: seen.append(float(y[0, 0])), x)
        return x.sum()

    out = scaled(watched)(jnp.ones((1, 64)))
    jax.effects_barrier()
    assert (seen, float(log2(out))) == ([2.0**90], 186)


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
