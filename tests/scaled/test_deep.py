"""Flow of networks of hundreds of layers, against float64 NumPy that keeps its own exponents."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import synflow_jax as sf
from synflow_jax.scaled import scaled
from tests.support.by_hand import flow_by_hand
from tests.support.deep import RTOL, kernels, looped, scanned
from tests.support.nets import all_true

WIDTH = 16
flow_and_scores = jax.jit(lambda saliency, p, masks: saliency.flow_and_scores(p, masks))


def residual_looped(params, x):
    """Blocks h + W₂ relu(W₁ h)."""
    for up, down in zip(params["up"], params["down"], strict=True):
        x = x + jax.nn.relu(x @ up) @ down
    return x


def residual_scanned(params, x):
    """The same blocks over stacked kernels."""

    def block(h, pair):
        return h + jax.nn.relu(h @ pair["up"]) @ pair["down"], None

    return lax.scan(block, x, params)[0]


def check(apply_fn, params, wanted, width=WIDTH):
    """Compare the library's flow and scores with (log2 R, scores over R in tree order)."""
    saliency = sf.synflow_saliency(apply_fn, (width,))
    flow, scores = flow_and_scores(saliency, params, all_true(params))
    got = np.log2(float(flow.mantissa)) + int(flow.exponent)
    assert got == pytest.approx(wanted[0], abs=RTOL)
    found = [np.asarray(s, np.float64) / float(flow.mantissa) for s in jax.tree.leaves(scores)]
    for mine, theirs in zip(found, wanted[1], strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=RTOL)
    return wanted[0], found


LOOPS = [(200, 16, jnp.float32), (45, 64, jnp.bfloat16), (45, 64, jnp.float16)]


@pytest.mark.parametrize(("length", "width", "dtype"), LOOPS)
def test_a_loop_over_layers_in_every_precision(length, width, dtype):
    stack = kernels(length, width, width, dtype=dtype)
    params = {f"layer{i}": {"kernel": kernel} for i, kernel in enumerate(stack)}
    log2_flow, shares = flow_by_hand([(k,) for k in stack])
    order = [int(name.removeprefix("layer")) for name in sorted(params)]
    found = check(looped, params, (log2_flow, [shares[i][0] for i in order]), width)
    assert log2_flow > 128  # past float32
    assert all(abs(share.sum() - 1) < RTOL for share in found[1])  # every layer is a cut


@pytest.mark.parametrize(("dtype", "length"), [(jnp.bfloat16, 45), (jnp.float16, 12)])
def test_half_precision_itself_stays_in_range(dtype, length):
    stack = kernels(length, 64, 64, dtype=dtype)
    wanted = flow_by_hand([(k,) for k in stack])[0]
    mantissa, exponent = jax.jit(scaled(loop_of))(jnp.abs(stack), jnp.ones((1, 64), dtype))
    got = np.log2(float(mantissa)) + int(exponent)
    assert wanted > jnp.finfo(dtype).maxexp
    # One rounding a layer, either way.
    assert got == pytest.approx(wanted, abs=2 * float(jnp.finfo(dtype).eps) * np.sqrt(length))


def loop_of(stack, x):
    """The network over a list of kernels, summed in float32."""
    for kernel in stack:
        x = jax.nn.relu(x @ kernel)
    return jnp.sum(x.astype(jnp.float32))


@pytest.mark.parametrize("length", [100, 1000])
def test_a_scan_over_layers_is_as_exact_as_a_loop(length):
    stack = kernels(length, WIDTH, WIDTH)
    log2_flow, shares = flow_by_hand([(k,) for k in stack])
    check(scanned, {"kernel": stack}, (log2_flow, [np.stack([s[0] for s in shares])]))
    assert log2_flow > 2 * length


@pytest.mark.parametrize(("blocks", "as_scan", "past"), [(400, True, 1024), (25, False, 128)])
def test_residual_blocks_past_every_range(blocks, as_scan, past):
    width = 32
    up, down = kernels(blocks, width, width), kernels(blocks, width, width, seed=1)
    log2_flow, shares = flow_by_hand([*zip(up, down, strict=True)], residual=True)
    if as_scan:
        wanted = [np.stack([pair[i] for pair in shares]) for i in (1, 0)]
        check(residual_scanned, {"up": up, "down": down}, (log2_flow, wanted), width)
    else:
        wanted = [pair[i] for i in (1, 0) for pair in shares]
        check(residual_looped, {"up": [*up], "down": [*down]}, (log2_flow, wanted), width)
    assert log2_flow > past


def test_a_single_path_below_every_range():
    stack = kernels(600, WIDTH, WIDTH) / 16
    path = np.random.default_rng(2).integers(WIDTH, size=601)
    masks = np.zeros(stack.shape, bool)
    masks[np.arange(600), path[:-1], path[1:]] = True
    wanted = np.log2(np.abs(np.asarray(stack, np.float64))[masks]).sum()
    saliency = sf.synflow_saliency(scanned, (WIDTH,))
    flow, scores = flow_and_scores(saliency, {"kernel": stack}, {"kernel": jnp.asarray(masks)})
    assert wanted < -2000  # float64 ends at −1074
    assert np.log2(float(flow.mantissa)) + int(flow.exponent) == pytest.approx(wanted, abs=RTOL)
    np.testing.assert_allclose(scores["kernel"][masks], flow.mantissa, rtol=RTOL)
    assert not np.asarray(scores["kernel"])[~masks].any()


@pytest.mark.filterwarnings("ignore::synflow_jax.CollapseWarning")
@pytest.mark.filterwarnings("ignore::synflow_jax.UncertifiedWarning")
def test_float32_prunes_to_1e5_as_float64_does():
    found = {}
    for bits in (32, 64):
        with jax.enable_x64(bits == 64):
            up, down = (kernels(60, 64, 64, seed=s) / 32 for s in (0, 1))
            dtype = jnp.float64 if bits == 64 else jnp.float32
            params = {"up": up.astype(dtype), "down": down.astype(dtype)}
            saliency = sf.synflow_saliency(chain_of_pairs, (64,))
            found[bits] = [np.asarray(v) for v in rounds_of(params, saliency)]
    (kept, flow), (kept64, flow64) = found[32], found[64]
    np.testing.assert_array_equal(kept, kept64)
    alive = np.isfinite(flow64)
    np.testing.assert_allclose(flow[alive], flow64[alive], rtol=1e-5)
    assert flow64[alive].min() < -149  # float32 would have been dead
    assert np.isneginf(flow[~alive]).all()


def chain_of_pairs(params, x):
    """The residual blocks without their skips."""
    return lax.scan(lambda h, p: (h @ p["up"] @ p["down"], None), x, params)[0]


def rounds_of(params, saliency):
    """Prune to 1e5 in ten rounds."""
    info = sf.prune(params, saliency, 1e5, 10)[1]
    return info.kept.sum(-1), info.log2_flow


def test_mean_field_predicts_the_flow_of_300_layers():
    stack = kernels(300, 64, 64)
    mean = np.abs(np.asarray(stack, np.float64)).mean((1, 2))
    # R is multilinear: with constant kernels, R = n · ∏ n·mean|w|. A layer of 64 units scatters
    # log10 R by 0.75/64/ln 10 = 0.005, 300 of them by √300 as much.
    predicted = np.log10(64) + np.log10(64 * mean).sum()
    got = float(sf.log2_flow({"kernel": stack}, scanned, (64,))) * np.log10(2)
    assert got == pytest.approx(predicted, abs=3 * 0.005 * np.sqrt(300))
    assert predicted > 250
