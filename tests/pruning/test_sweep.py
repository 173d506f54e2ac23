"""The final sweep: every kept weight lies on a path from input to output."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import synflow_jax as sf
from synflow_jax.plan import find_layers
from synflow_jax.pruning import sweep_dead
from synflow_jax.trees import pick
from tests.support.nets import (
    CONV_SHAPE,
    mlp,
    mlp_params,
    pooled,
    pooled_params,
    residual,
    residual_params,
)

WIDE = (12, 30, 30, 4)


def wide_params(seed=0):
    return mlp_params(seed, WIDE, bias=0.3)


NETS = {
    "mlp": (mlp, wide_params, WIDE[:1], 40.0),
    "residual": (residual, residual_params, CONV_SHAPE, 10.0),
    "conv and max-pool": (pooled, pooled_params, CONV_SHAPE, 16.0),
}


def both(name, seed, **options):
    net, make, shape, rho = NETS[name]
    params, saliency = make(seed), sf.synflow_saliency(net, shape)
    plain = sf.prune(params, saliency, rho, 5, **options)
    swept = sf.prune(params, saliency, rho, 5, sweep=True, **options)
    return params, (net, shape), plain, swept


def live_share(params, masks, where):
    """Effective density over density."""
    sizes = [(int(m.sum()), m.size) for m in jax.tree.leaves(masks) if m.ndim > 1]
    kept, total = map(sum, zip(*sizes, strict=True))
    return sf.effective_density(params, masks, *where) * total / kept, kept


@pytest.mark.filterwarnings("ignore::synflow_jax.UncertifiedWarning")  # five rounds are few
@pytest.mark.parametrize(
    ("name", "schedule"),
    [(name, sf.exponential) for name in NETS] + [("mlp", sf.certified())],
    ids=[*NETS, "mlp, certified"],
)
def test_density_becomes_effective_density(name, schedule):
    before = []
    for seed in range(2):
        params, where, (plain, _), (masks, info) = both(name, seed, schedule=schedule)
        share, count = live_share(params, plain, where)
        before.append(share)
        swept, kept = live_share(params, masks, where)
        assert swept == pytest.approx(1.0, abs=1e-9)
        assert kept == count == int(info.kept[-1].sum())
        flow = float(sf.log2_flow(params, *where, masks))
        assert float(info.log2_flow[-1]) == pytest.approx(flow, abs=1e-4)
        assert flow >= float(sf.log2_flow(params, *where, plain)) - 1e-4
    assert min(before) < 1 - 1e-6  # there was something to sweep


def test_what_is_alive_stays_and_the_best_candidate_comes():
    # Unit 1 has an input and no output: its weight, 9, is dead. Of the pruned weights 5 and 0.5,
    # the first lies on the way to the live unit 0.
    params = {
        "one": jnp.array([[2.0, 9.0], [0.5, 1.0], [5.0, 1.0]]),
        "two": jnp.array([[1.0], [0.1]]),
    }
    masks = {
        "one": jnp.array([[True, True], [False, False], [False, False]]),
        "two": jnp.array([[True], [False]]),
    }
    saliency = sf.synflow_saliency(lambda p, x: jax.nn.relu(x @ p["one"]) @ p["two"], (3,))
    layers = find_layers(params, sf.plan.is_prunable)
    chosen, dead = sweep_dead(params, saliency, layers, pick(masks, layers.prunable))
    assert dead == 0
    assert chosen[0].tolist() == [[True, False], [False, False], [True, False]]
    assert chosen[1].tolist() == [[True], [False]]


def test_candidates_score_what_their_flow_would_be():
    params = mlp_params(3, bias=0.0)
    saliency = sf.synflow_saliency(mlp, (5,))
    layers = find_layers(params, sf.plan.is_prunable)
    masks, _ = sf.prune(params, saliency, 3.0, 20)
    chosen = pick(masks, layers.prunable)
    scores = saliency.candidate_scores(params, chosen, layers.prunable)
    flow = 2.0 ** float(sf.log2_flow(params, mlp, (5,), masks))
    middle = np.asarray(chosen[1])
    gains = 0
    for i, j in np.argwhere(~middle):
        more = {**masks, "layer1": {**masks["layer1"], "kernel": chosen[1].at[i, j].set(True)}}
        gain = 2.0 ** float(sf.log2_flow(params, mlp, (5,), more)) - flow
        reached = bool(middle[:, j].any())  # a unit without input has no slope in jax.nn.relu
        want = gain if reached else 0.0
        # A difference of two float32 flows.
        assert float(scores[1][i, j]) == pytest.approx(want, abs=2e-6 * flow)
        gains += want > 1e-3 * flow
    assert gains > 3
    # Weights that are kept score what they always do.
    plain = saliency(params, masks)["layer1"]["kernel"]
    np.testing.assert_allclose(np.where(middle, scores[1], 0), plain, rtol=1e-5)


def test_nothing_to_sweep_changes_nothing():
    params = mlp_params(4)
    masks, info = sf.prune(params, sf.synflow_saliency(mlp, (5,)), 1.0, 2, sweep=True)
    assert jax.tree.all(jax.tree.map(lambda m: bool(m.all()), masks))
    assert info.kept[-1].tolist() == list(info.sizes)


def test_too_few_candidates_are_said_and_the_count_stays():
    # Three weights can carry flow and four are asked for: the fourth is the dead 3.
    params = {"one": jnp.array([[1.0, 3.0]]), "two": jnp.array([[1.0, 1.0], [0.0, 0.0]])}

    def net(p, x):
        return jax.nn.relu(x @ p["one"]) @ p["two"]

    with pytest.warns(sf.CollapseWarning, match="1 kept weights lie on no path"):
        masks = sf.synflow(params, net, (1,), 1.5, rounds=1, sweep=True)
    assert int(masks["one"].sum() + masks["two"].sum()) == 4


def test_sweep_bears_weights_of_extreme_size():
    rng = np.random.default_rng(0)
    params = {
        "u": jnp.asarray(rng.standard_normal((8, 16)), jnp.float32),
        "v": jnp.asarray(rng.standard_normal((16, 16)) * 1e6, jnp.float32),
        "w": jnp.asarray(rng.standard_normal((16, 4)), jnp.float32),
    }

    def net(p, x):
        return jax.nn.relu(jax.nn.relu(x @ p["u"]) @ p["v"]) @ p["w"]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sf.UncertifiedWarning)
        masks = sf.synflow(params, net, (8,), 30.0, sweep=True, rounds=3)
    kept = sum(int(mask.sum()) for mask in masks.values())
    assert kept == 15
    assert sf.effective_density(params, masks, net, (8,)) == kept / 448
