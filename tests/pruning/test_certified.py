"""The certified schedule: what a round may prune, and what follows from it."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import synflow_jax as sf
from synflow_jax.scaled import unscale
from tests.support.nets import (
    CONV_SHAPE,
    MLP,
    RES,
    SIZE,
    WIDTHS,
    all_true,
    equal,
    kept,
    mlp,
    mlp_params,
    pooled,
    pooled_params,
    residual_params,
)

# Tiny networks at high compression lose outputs, which is not what these tests are about.
pytestmark = pytest.mark.filterwarnings(
    "ignore:check of the network as pruned:synflow_jax.CollapseWarning"
)
CERTIFIED = sf.certified()


CHAIN = sf.synflow_saliency(pooled, CONV_SHAPE)
NETS = {
    "mlp": (MLP, mlp_params),
    "residual": (RES, residual_params),
    "chain": (CHAIN, pooled_params),
}


DEEP = (10, 20, 20, 20, 20, 5)


def hundred(widths):
    seeds = [mlp_params(seed, widths, bias=0.0) for seed in range(100)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *seeds)


@pytest.mark.parametrize(("widths", "most"), [(WIDTHS, 12), (DEEP, 30)])
def test_reaches_one_weight_a_layer_on_every_seed(widths, most):
    saliency, params = sf.synflow_saliency(mlp, widths[:1]), hundred(widths)
    rho = sf.measure.max_compression(mlp_params(0, widths))
    run = jax.vmap(lambda p: sf.prune(p, saliency, rho, schedule=sf.certified(most=most)))
    masks, info = jax.jit(run)(params)
    for layer in masks.values():
        assert (np.asarray(layer["kernel"].sum((1, 2))) == 1).all()
    assert np.isfinite(info.log2_flow).all()
    assert bool(info.certified.all())
    assert not bool(info.collapsed_at.any())
    assert int(info.rounds.max()) <= most


def test_exponential_does_not_where_certified_does():
    saliency, params = sf.synflow_saliency(mlp, DEEP[:1]), hundred(DEEP)
    rho = sf.measure.max_compression(mlp_params(0, DEEP))
    info = jax.jit(jax.vmap(lambda p: sf.prune(p, saliency, rho, 10)[1]))(params)
    lost = np.asarray(info.collapsed_at) > 0
    assert 10 <= lost.sum() < 100
    # Only rounds without a certificate lose the flow.
    assert not (np.asarray(info.certified) & lost).any()


@given(st.sampled_from(sorted(NETS)), st.integers(0, 10_000), st.floats(0.1, 0.6))
@settings(max_examples=40, deadline=None)
def test_p4_pruning_costs_at_most_the_scores(name, seed, density):
    saliency, make = NETS[name]
    params, rng = make(seed), np.random.default_rng(seed)

    def drop(mask):
        gone = jnp.asarray(rng.uniform(size=mask.shape) < density)
        return mask & ~(gone & (mask.ndim >= 2))

    before = jax.tree.map(drop, all_true(params))
    after = jax.tree.map(drop, before)
    start, scores, end = measure(saliency, params, before, after)
    triples = zip(*(jax.tree.leaves(t) for t in (scores, before, after)), strict=True)
    lost = sum(float(np.asarray(s, np.float64)[np.asarray(b & ~a)].sum()) for s, b, a in triples)
    # Sums of a few hundred float32 products.
    assert end >= start - lost - 2e-5 * start
    assert 0 <= end <= start * (1 + 2e-5)


@jax.jit
def measure(saliency, params, before, after):
    flow, scores = saliency.flow_and_scores(params, before)
    return unscale(*flow), scores, unscale(*saliency.flow(params, after))


@pytest.mark.parametrize(
    ("name", "alpha"), [("mlp", 0.5), ("mlp", 0.9), ("residual", 0.5), ("chain", 0.5)]
)
def test_every_round_keeps_the_rest_of_the_flow(name, alpha):
    saliency, make = NETS[name]
    params = make(3)
    rho = 20.0
    _, info = sf.prune(params, saliency, rho, schedule=sf.certified(alpha))
    share, flow = np.asarray(info.share, np.float64), np.exp2(np.asarray(info.log2_flow))
    assert share.max() <= alpha + 1e-5
    assert (flow[1:] >= (1 - share - 2e-5) * flow[:-1]).all()
    assert flow[-1] > 0
    assert (np.diff(np.asarray(info.kept).sum(1)) <= 0).all()
    assert info.kept[-1].sum() == math.ceil(sum(info.sizes) / rho)
    # Trimmed to the rounds that ran.
    rounds = int(info.rounds)
    assert (len(info.kept), len(info.log2_flow), len(info.share)) == (rounds, rounds + 1, rounds)
    assert bool(info.certified)
    # A larger share a round is fewer rounds.
    assert alpha == 0.5 or rounds < int(
        sf.prune(params, saliency, rho, schedule=CERTIFIED)[1].rounds
    )


def test_a_round_prunes_the_largest_prefix():
    params = mlp_params(4, bias=0.0)
    _, info = sf.prune(params, MLP, 30.0, schedule=CERTIFIED)
    scores = jax.tree.leaves(MLP(params, all_true(params)))
    flat = np.concatenate([np.asarray(s, np.float64).ravel() for s in scores if s.ndim == 2])
    flow = 2.0 ** float(info.log2_flow[0])
    running = np.cumsum(np.sort(flat))
    gone = SIZE - int(info.kept[0].sum())
    assert running[gone - 1] <= 0.5 * flow < running[gone]
    assert float(info.share[0]) == pytest.approx(running[gone - 1] / flow, rel=1e-5)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("rho", [3.0, 30.0])
def test_never_more_rounds_than_the_exponential(name, rho):
    saliency, make = NETS[name]
    for seed in range(3):
        _, info = sf.prune(make(seed), saliency, rho, schedule=CERTIFIED)
        assert int(info.rounds) <= 100


def test_a_wide_network_at_a_thousand_takes_fewer_than_a_hundred_rounds():
    params = mlp_params(0, widths=(40, 60, 60, 10))
    saliency = sf.synflow_saliency(mlp, (40,))
    masks, info = sf.prune(params, saliency, 1000.0, schedule=CERTIFIED)
    assert kept(masks) == math.ceil(6600 / 1000)
    assert int(info.rounds) <= 40


@pytest.mark.parametrize("seed", range(4))
def test_large_biases_empty_no_layer(seed):
    bare, noisy = mlp_params(seed, bias=0.0), mlp_params(seed, bias=0.5)
    noisy = {n: {**bare[n], "bias": noisy[n]["bias"]} for n in bare}
    before = jax.tree.map(np.array, noisy)
    masks, same = (
        sf.synflow(p, mlp, WIDTHS[:1], SIZE / 3, schedule=CERTIFIED) for p in (noisy, bare)
    )
    assert sf.collapsed_layers(masks) == ()
    assert equal(masks, same)
    assert all(bool(layer["bias"].all()) for layer in masks.values())
    assert equal(before, noisy)


def test_the_certified_flow_starts_at_the_input_alone():
    params = mlp_params(1, bias=0.5)
    bare = jax.tree.map(lambda leaf: leaf if leaf.ndim == 2 else 0 * leaf, params)
    _, info = sf.prune(params, MLP, 2.0, schedule=CERTIFIED)
    want, more = (float(sf.log2_flow(p, mlp, WIDTHS[:1])) for p in (bare, params))
    assert float(info.log2_flow[0]) == pytest.approx(want, abs=1e-5)
    assert more > want + 0.1


def test_what_scales_a_signal_is_no_source():
    """A layer scale by any usual name keeps the branch that it scales."""
    rng = np.random.default_rng(0)
    shapes = {"u": (8, 16), "f": (16, 16), "w": (16, 4)}
    params = {k: jnp.asarray(rng.standard_normal(s), jnp.float32) for k, s in shapes.items()}
    kept = []
    for name in ("scale", "layer_scale", "weight", "gain"):

        def net(p, x, name=name):
            h = jax.nn.relu(x @ p["u"])
            return (h + p[name][None] * jax.nn.relu(h @ p["f"])) @ p["w"]

        masks = sf.synflow(params | {name: jnp.full(16, 0.5)}, net, (8,), 4.0, schedule=CERTIFIED)
        kept.append([int(masks[k].sum()) for k in shapes])
    assert kept[0][1] > 0
    assert kept == [kept[0]] * 4


def test_token_models_start_at_their_embedding():
    rng = np.random.default_rng(0)
    shapes = {"embedding": (7, 8), "f": (8, 16), "w": (16, 4)}
    params = {k: jnp.asarray(rng.standard_normal(s), jnp.float32) for k, s in shapes.items()}

    def net(p, x):
        return jax.nn.relu(p["embedding"][x] @ p["f"]) @ p["w"]

    tokens = jax.ShapeDtypeStruct((5,), jnp.int32)
    masks = sf.synflow(params, net, tokens, 4.0, schedule=CERTIFIED, sweep=True)
    assert int(masks["f"].sum() + masks["w"].sum()) == 48
    assert sf.effective_density(params, masks, net, tokens) == 48 / 192
