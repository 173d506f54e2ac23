"""Independent oracles of flow and scores: every path by hand, and the mean field."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

import synflow_jax as sf
from tests.support.by_hand import brute_force
from tests.support.nets import (
    RES,
    RTOL,
    all_true,
    conv,
    mlp,
    mlp_params,
    random_masks,
    residual_params,
    score,
    seeds,
)


@given(seeds)
@settings(max_examples=8, deadline=None)
def test_p6_scores_are_sums_over_paths(seed):
    params = mlp_params(seed, widths=(3, 4, 3, 2), bias=0.0)
    masks = random_masks(params, seed)
    kernels = [
        np.where(masks[n]["kernel"], params[n]["kernel"], 0).astype(np.float64) for n in params
    ]
    flow, sums = brute_force(kernels)
    scores = sf.synflow_saliency(mlp, (3,))(params, masks)
    for name, want in zip(params, sums, strict=True):
        np.testing.assert_allclose(scores[name]["kernel"], want, rtol=RTOL, atol=1e-7)
    got = float(sf.log2_flow(params, mlp, (3,), masks))
    assert got == pytest.approx(np.log2(flow) if flow else -np.inf, abs=1e-4)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.filterwarnings("ignore::synflow_jax.UncertifiedWarning")  # one round
def test_p6_masks_are_nested_and_one_round_is_the_global_top(seed):
    params = residual_params(seed)
    _, info = sf.prune(params, RES, 8.0, 6)
    # Nested: no layer ever grows, and the whole count falls to the target.
    assert (np.diff(np.asarray(info.kept), axis=0) <= 0).all()
    masks, _ = sf.prune(params, RES, 4.0, 1)
    scores = score(RES, params, all_true(params))
    names = ("down", "head", "stem", "up")
    flat = np.concatenate([np.asarray(scores[n]["kernel"]).ravel() for n in names])
    got = np.concatenate([np.asarray(masks[n]["kernel"]).ravel() for n in names])
    count = -(-flat.size // 4)
    assert got.sum() == count
    assert flat[got].min() >= flat[~got].max()


@pytest.mark.parametrize("seed", range(4))
def test_p6_pruned_weights_never_return(seed):
    params = residual_params(seed)
    masks = all_true(params)
    kernels = ("down", "head", "stem", "up")
    for rho in (2.0, 3.0, 6.0):
        new, _ = sf.prune(sf.apply_masks(params, masks), RES, rho, 1)
        for name in kernels:
            assert not bool((new[name]["kernel"] & ~masks[name]["kernel"]).any())
        masks = new


def wide_net(params, x):
    for i in range(4):
        x = jax.nn.relu(conv(x, params[f"c{i}"]))
    return jnp.mean(x, (1, 2)) @ params["head"]


def test_mean_field_predicts_the_flow_of_a_large_random_net():
    # R is multilinear, so E[R] = R(E|θ|): constant kernels of the mean |w| predict log R. With
    # 64 channels the deviation of a sum of 576 terms leaves about 0.01 decades.
    rng = np.random.default_rng(0)
    widths = (3, 64, 64, 64, 64)
    params = {
        f"c{i}": jnp.asarray(
            rng.standard_normal((3, 3, widths[i], widths[i + 1])) * np.sqrt(2 / (9 * widths[i])),
            jnp.float32,
        )
        for i in range(4)
    }
    params["head"] = jnp.asarray(rng.standard_normal((64, 10)) / 8, jnp.float32)
    constant = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.mean(jnp.abs(leaf))), params)
    got, want = (float(sf.log2_flow(p, wide_net, (8, 8, 3))) for p in (params, constant))
    assert abs(got - want) * np.log10(2) < 0.02
    # An oracle independent of the network code: corners, edges and inside of an 8×8 map lose
    # taps to the padding, so propagate the tap counts by hand.
    line = np.ones(8)
    for _ in range(4):
        line = np.convolve(line, np.ones(3), "same")
    by_hand = np.mean(np.outer(line, line)) * 3 * 64**4 * 10 / 1.0
    means = [float(jnp.mean(jnp.abs(leaf))) for leaf in params.values()]
    assert np.log10(by_hand * np.prod(means)) == pytest.approx(want * np.log10(2), abs=1e-3)
