"""SynFlow-L2: the flow of squared weights, S = θ² ⊙ ∂R/∂θ², against sums over paths by hand."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import synflow_jax as sf
from synflow_jax.scaled import unscale
from tests.support.by_hand import brute_force, flow_by_hand
from tests.support.deep import RTOL, kernels, scanned
from tests.support.nets import WIDTHS, all_true, kept, mlp, mlp_params, random_masks, score

L2 = sf.saliency.synflow_l2_saliency
flow_and_scores = jax.jit(lambda saliency, p, masks: saliency.flow_and_scores(p, masks))


def squares(params, masks=None):
    """The squared kernels that are kept, in float64."""
    masks = all_true(params) if masks is None else masks
    return [
        np.where(masks[name]["kernel"], np.asarray(params[name]["kernel"], np.float64), 0) ** 2
        for name in params
    ]


@pytest.mark.parametrize("seed", range(4))
def test_flow_and_scores_are_sums_over_every_path(seed):
    params = mlp_params(seed, widths=(3, 4, 3, 2), bias=0.0)
    masks = random_masks(params, seed)
    flow, sums = brute_force(squares(params, masks))
    saliency = L2(mlp, (3,))
    assert float(unscale(*saliency.flow(params, masks))) == pytest.approx(flow, rel=1e-5)
    scores = saliency(params, masks)
    for name, want in zip(params, sums, strict=True):
        # Sums of a few dozen float32 products.
        np.testing.assert_allclose(scores[name]["kernel"], want, rtol=2e-5, atol=1e-7)


def test_with_biases_every_squared_bias_starts_paths(x64):
    """A bias is a path's first factor; its score is all that runs through it."""
    params = mlp_params(1, dtype=jnp.float64)
    scores = L2(mlp, WIDTHS[:1])(params, all_true(params))
    biases = [np.square(np.asarray(params[name]["bias"])) for name in params]
    entered = np.ones(WIDTHS[0])
    for i, (square, bias) in enumerate(zip(squares(params), biases, strict=True)):
        after = np.ones(WIDTHS[-1])
        for later in reversed(squares(params)[i + 1 :]):
            after = later @ after
        np.testing.assert_allclose(
            scores[f"layer{i}"]["kernel"], entered[:, None] * square * after, rtol=1e-12
        )
        np.testing.assert_allclose(scores[f"layer{i}"]["bias"], bias * after, rtol=1e-12)
        entered = entered @ square + bias


def test_the_derivative_is_by_the_square(x64):
    """Half of θ ⊙ ∂R/∂θ, as 2θ is the slope of θ²; a pruned weight scores 0."""
    params = mlp_params(2, dtype=jnp.float64)
    masks = random_masks(params, 2)

    def flow(p):
        return jnp.sum(mlp(jax.tree.map(jnp.square, p), jnp.ones((1, WIDTHS[0]))))

    slopes = jax.grad(flow)(sf.apply_masks(params, masks))
    scores = L2(mlp, WIDTHS[:1])(params, masks)
    leaves = zip(*map(jax.tree.leaves, (params, slopes, scores, masks)), strict=True)
    for theta, slope, got, mask in leaves:
        want = np.where(mask, theta * slope / 2, 0)
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("widths", [(4, 3), (5, 1, 6), WIDTHS, (3, 8, 8, 8, 2)])
def test_on_a_linear_chain_every_layer_sums_to_the_flow(widths, x64):
    names = [f"{i}" for i in range(len(widths) - 1)]
    rng = np.random.default_rng(len(widths))
    pairs = zip(names, itertools.pairwise(widths), strict=True)
    params = {name: jnp.asarray(rng.standard_normal(shape)) for name, shape in pairs}

    def chain(p, x):
        for name in names:
            x = x @ p[name]
        return x

    closed = np.ones(widths[0])  # R = 1ᵀ ∏ θ² 1
    for name in names:
        closed = closed @ np.square(params[name])
    saliency = L2(chain, widths[:1])
    scores = saliency(params, all_true(params))
    sums = [float(scores[name].sum()) for name in names]
    assert sums == pytest.approx([float(closed.sum())] * len(names), rel=1e-12)
    flow = unscale(*saliency.flow(params, all_true(params)))
    assert float(flow) == pytest.approx(float(closed.sum()), rel=1e-12)


def test_one_strong_path_counts_more_than_two_weak_ones():
    weights = {"w": jnp.array([[-1.0, 1.0]]), "v": jnp.array([[1.0, -1.0], [1.5, 0.0]])}
    masks, net = all_true(weights), lambda p, x: x @ p["w"] @ p["v"]
    assert sf.synflow_saliency(net, (1,))(weights, masks)["w"].tolist() == [[2.0, 1.5]]
    assert L2(net, (1,))(weights, masks)["w"].tolist() == [[2.0, 2.25]]


# Tiny networks at these ratios lose outputs and layers, which the check says.
pytestmark = pytest.mark.filterwarnings("ignore:check of the network")
CERTIFIED = sf.certified()


def test_certified_rounds_go_down_to_one_weight_a_layer():
    saliency = L2(mlp, WIDTHS[:1])
    for seed in range(3):
        params = mlp_params(seed, bias=0.0)
        rho = sf.measure.max_compression(params)
        masks, info = sf.prune(params, saliency, rho, schedule=CERTIFIED)
        assert [int(layer["kernel"].sum()) for layer in masks.values()] == [1, 1, 1]
        assert math.isfinite(float(info.log2_flow[-1]))
        assert bool(info.certified)
        assert float(info.share.max()) <= CERTIFIED.alpha + 1e-5


def test_no_round_costs_more_flow_than_the_scores_say():
    params = mlp_params(7, bias=0.0)
    _, info = sf.prune(params, L2(mlp, WIDTHS[:1]), 20.0, 12, nested=True)
    flow = np.exp2(np.asarray(info.log2_flow, np.float64))
    assert (flow[1:] >= (1 - np.asarray(info.share) - 2e-5) * flow[:-1]).all()
    assert np.asarray(info.share).sum() > 0.5


@pytest.mark.filterwarnings("ignore::synflow_jax.UncertifiedWarning")  # three rounds are few
def test_a_sweep_leaves_no_weight_off_the_paths():
    widths, size = (8, 16, 16, 4), 448
    params, live = mlp_params(0, widths, bias=0.3), []
    for sweep in (False, True):
        masks = sf.synflow_l2(params, mlp, widths[:1], 20.0, rounds=3, sweep=sweep)
        assert kept(masks) == math.ceil(size / 20)
        live.append(sf.effective_density(params, masks, mlp, widths[:1]) * size / kept(masks))
    assert live[0] < 1 - 1e-6  # there was something to sweep
    assert live[1] == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("scale", [4.0, 1 / 8])
def test_a_chain_of_110_layers_stays_in_range(scale):
    stack = scale * kernels(110, 16, 16)
    log2_flow, shares = flow_by_hand([(np.square(kernel, dtype=np.float64),) for kernel in stack])
    assert abs(log2_flow) > 400  # plain float32 ends at 2^128 and 2^-149
    params, saliency = {"kernel": stack}, L2(scanned, (16,))
    flow, scores = flow_and_scores(saliency, params, all_true(params))
    assert np.log2(float(flow.mantissa)) + int(flow.exponent) == pytest.approx(log2_flow, abs=RTOL)
    want = np.stack([share for (share,) in shares])
    # Squares round once more than weights.
    np.testing.assert_allclose(scores["kernel"] / flow.mantissa, want, rtol=2 * RTOL)
    assert bool(jnp.isfinite(score(saliency, params, all_true(params))["kernel"]).all())
