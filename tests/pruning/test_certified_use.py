"""The certified schedule in use: exact counts, jit and vmap, and what it warns of."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import synflow_jax as sf
from tests.support.nets import (
    MLP,
    SIZE,
    WIDTHS,
    all_true,
    equal,
    kept,
    mlp,
    mlp_params,
)

# Tiny networks at high compression lose outputs, which is not what these tests are about.
pytestmark = pytest.mark.filterwarnings(
    "ignore:check of the network as pruned:synflow_jax.CollapseWarning"
)
CERTIFIED = sf.certified()


def certified_masks(params, rho):
    return sf.synflow(params, mlp, WIDTHS[:1], rho, schedule=CERTIFIED)


traced_masks = jax.jit(certified_masks)


@pytest.mark.parametrize("rho", [1.0, 2.7, 13.0, 25.0, SIZE / 3])
def test_the_count_is_exact_however_it_is_called(rho):
    params = mlp_params(5)
    masks = certified_masks(params, rho)
    assert kept(masks) == math.ceil(SIZE / rho - 1e-9)
    # A float32 above SIZE / 3 would leave two weights for three layers.
    if rho < SIZE / 3:
        assert equal(masks, traced_masks(params, jnp.float32(rho)))


def test_vmap_over_rho_and_seeds():
    ratios, seeds = jnp.array([1.0, 4.0, 20.0]), [mlp_params(seed) for seed in range(2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *seeds)

    def run(params, rho):
        return sf.prune(params, MLP, rho, schedule=CERTIFIED)

    together, info = jax.vmap(lambda p: jax.vmap(lambda r: run(p, r))(ratios))(stacked)
    for i, j in itertools.product(range(2), range(3)):
        masks, alone = run(seeds[i], float(ratios[j]))
        assert equal(masks, jax.tree.map(lambda leaf, i=i, j=j: leaf[i, j], together))
        rounds = int(alone.rounds)
        assert int(info.rounds[i, j]) == rounds
        assert info.kept[i, j, :rounds].tolist() == alone.kept.tolist()


def test_under_a_trace_rounds_that_did_not_run_prune_nothing():
    params = mlp_params(6)
    run = jax.jit(lambda p: sf.prune(p, MLP, 10.0, schedule=CERTIFIED)[1])
    traced, eager = run(params), sf.prune(params, MLP, 10.0, schedule=CERTIFIED)[1]
    rounds = int(eager.rounds)
    assert 1 < rounds < 20
    assert traced.kept.shape == (1000, 3)
    assert traced.log2_flow.shape == (1001,)
    assert (traced.kept[rounds:] == eager.kept[-1][None]).all()
    assert (traced.log2_flow[rounds:] == eager.log2_flow[-1]).all()
    assert not traced.share[rounds:].any()
    assert bool(traced.finite.all())
    assert bool(traced.certified)


def test_under_a_trace_what_cannot_be_reached_is_seen():
    params = mlp_params(7)
    info = jax.jit(lambda p: sf.prune(p, MLP, SIZE / 2, schedule=sf.certified(most=40))[1])
    with pytest.warns(sf.CollapseWarning, match="some layer must collapse"):
        traced = info(params)
    assert traced.kept[-1].tolist() == [1, 1, 1]
    assert np.isfinite(float(traced.log2_flow[-1]))


def test_a_round_that_prunes_all_the_flow_there_was_warns_with_the_remedy():
    params = mlp_params(11)
    with pytest.warns(sf.UncertifiedWarning, match=r"round 1 of 1 pruned .*certified\(\)"):
        _, info = sf.prune(params, MLP, 6.0, 1)
    assert float(info.share[0]) >= 1
    assert not bool(info.certified)
    assert int(info.collapsed_at) == 0
    assert not bool(sf.prune(params, sf.saliency.magnitude_saliency(), 6.0, 1)[1].certified)


def test_equal_settings_share_a_program():
    calls = []

    def net(params, x):
        calls.append(1)
        return mlp(params, x)

    for seed in range(2):
        sf.synflow(mlp_params(seed), net, WIDTHS[:1], 5.0 + seed, schedule=sf.certified(0.6))
    assert len(calls) == 1
    assert sf.certified(0.6) == sf.certified(0.6) != sf.certified(0.7)
    assert hash(sf.certified(0.6)) == hash(sf.certified(0.6))


def towers(names, layers=3, width=6):
    """Separate chains of one output each, whose last layers are of very different sizes."""
    rng = np.random.default_rng(0)
    params = {
        f"{name}{k}": jnp.asarray(rng.standard_normal((width, width)), jnp.float32)
        for name in names
        for k in range(layers)
    }
    for at, name in enumerate(names):
        params[f"{name}{layers - 1}"] *= 1000.0**-at

    def network(p, x):
        found = {}
        for name in names:
            h = x
            for k in range(layers):
                h = jax.nn.relu(h @ p[f"{name}{k}"])
            found[name] = h
        return found

    return params, network


@pytest.mark.parametrize("names", ["ab", "abc"])
def test_certified_rounds_keep_a_path_to_every_output_down_to_the_last_weights(names):
    params, network = towers(names)
    layers = len(params)
    rho = layers * 36 / layers  # one weight a layer
    saliency = sf.synflow_saliency(sf.flow_mode(network), (6,))
    masks, _ = sf.prune(params, saliency, rho, schedule=sf.certified())
    assert {name: int(mask.sum()) for name, mask in masks.items()} == dict.fromkeys(params, 1)
    for name in names:
        flow = sf.log2_flow(params, lambda p, x, name=name: network(p, x)[name], (6,), masks)
        assert np.isfinite(flow)
    # The paper's sum of all outputs keeps the largest alone.
    plain = sf.synflow_saliency(network, (6,))
    masks, _ = sf.prune(params, plain, rho, schedule=sf.certified())
    assert not masks[f"{names[-1]}0"].any()


def test_weights_of_outputs_are_shares_of_what_a_certified_round_may_prune():
    params, network = towers("ab")
    network = sf.flow_mode(network)
    equal = sf.synflow_saliency(network, (6,))
    weighted = sf.synflow_saliency(network, (6,), outputs={"a": 3, "b": 1})
    alone = sf.synflow_saliency(network, (6,), outputs={"a": 3})
    plain = sf.synflow_saliency(towers("ab")[1], (6,))
    for saliency, share in ((equal, 1 / 2), (weighted, 1 / 4), (alone, 1.0), (plain, 1.0)):
        of_layers = jnp.ones(len(params))
        assert float(saliency.least_claim(params, all_true(params), 1.0, of_layers)) == share
    _, info = sf.prune(params, equal, 4, schedule=sf.certified())
    assert float(info.share.max()) <= 1 / 4 * (1 + 1e-5)  # α = 1/2 of a half
