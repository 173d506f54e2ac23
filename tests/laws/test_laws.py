"""The laws of synaptic flow, as properties of random networks."""

import chex
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
    RTOL,
    WIDTHS,
    all_true,
    mlp,
    mlp_params,
    random_masks,
    residual,
    residual_params,
    score,
    seeds,
)

few = settings(max_examples=15, deadline=None)


def total(scores, *path):
    for part in path:
        scores = scores[part]
    return float(jnp.sum(scores))


@given(seeds)
@few
def test_p1_what_enters_a_hidden_unit_leaves_it(seed):
    params = mlp_params(seed)
    flows = sf.measure.neuron_flow(params, mlp, WIDTHS[:1])
    scores = score(MLP, params, all_true(params))
    for i in range(2):
        into = flows[f"layer{i}/kernel"].into + scores[f"layer{i}"]["bias"]
        np.testing.assert_allclose(into, flows[f"layer{i + 1}/kernel"].out_of, rtol=RTOL)


@given(seeds)
@few
def test_p1_holds_for_the_training_loss_as_well(seed):
    params = mlp_params(seed)
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.standard_normal((6, WIDTHS[0])), jnp.float32)

    def loss(p):
        return jnp.mean(jnp.square(mlp(p, x) - 1.0))

    scores = score(sf.gradient_saliency(loss), params, all_true(params))
    for i in range(2):
        into = jnp.sum(scores[f"layer{i}"]["kernel"], 0) + scores[f"layer{i}"]["bias"]
        out_of = jnp.sum(scores[f"layer{i + 1}"]["kernel"], 1)
        # Signed terms cancel: an absolute error of the size of the terms' rounding.
        np.testing.assert_allclose(into, out_of, rtol=1e-4, atol=1e-5)


@given(seeds)
@few
def test_p2_layers_carry_the_flow_and_biases_add_to_it(seed):
    params = mlp_params(seed)
    flows = {k: float(v) for k, v in sf.measure.layer_flow(params, mlp, WIDTHS[:1]).items()}
    for i in range(2):
        into = flows[f"layer{i}/kernel"] + flows[f"layer{i}/bias"]
        assert into == pytest.approx(flows[f"layer{i + 1}/kernel"], rel=RTOL)
    end = flows["layer2/kernel"] + flows["layer2/bias"]
    assert np.log2(end) == pytest.approx(float(sf.log2_flow(params, mlp, WIDTHS[:1])), abs=1e-4)


@given(seeds)
@few
def test_p2_a_residual_branch_carries_its_own_flow_only(seed):
    params = residual_params(seed)
    params["norm"]["bias"] = jnp.zeros(4)
    params["norm"]["scale"] = params["norm"]["scale"] * 0.5
    scores = score(RES, params, all_true(params))
    flow = 2.0 ** float(sf.log2_flow(params, residual, CONV_SHAPE))
    assert total(scores, "up", "kernel") == pytest.approx(total(scores, "down", "kernel"), rel=RTOL)
    assert total(scores, "stem", "kernel") == pytest.approx(flow, rel=RTOL)
    assert total(scores, "head", "kernel") == pytest.approx(flow, rel=RTOL)
    assert total(scores, "up", "kernel") < 0.999 * flow


@given(seeds, st.integers(1, 3))
@few
def test_p3_euler_a_group_of_degree_d_sums_to_d_times_the_flow(seed, degree):
    weight = jnp.asarray(np.random.default_rng(seed).standard_normal((4, 4)), jnp.float32)

    def tied(params, x):
        for _ in range(degree):
            x = x @ params["w"]
        return x

    flow = 2.0 ** float(sf.log2_flow({"w": weight}, tied, (4,)))
    sums = sf.measure.layer_flow({"w": weight}, tied, (4,))
    assert float(sums["w"]) == pytest.approx(degree * flow, rel=RTOL)


@pytest.mark.parametrize(
    ("net", "make", "shape"),
    [(mlp, mlp_params, WIDTHS[:1]), (residual, residual_params, CONV_SHAPE)],
)
def test_p4_pruning_costs_no_more_flow_than_the_scores_say(net, make, shape):
    saliency = sf.synflow_saliency(net, shape)
    flow = jax.jit(lambda params, masks: unscale(*saliency.flow(params, masks)))
    for seed in range(15):
        params = make(seed)
        before, after = random_masks(params, seed, 0.9), random_masks(params, seed + 1, 0.8)
        after = jax.tree.map(jnp.logical_and, before, after)
        scores = score(saliency, params, before)
        lost = sum(
            float(jnp.sum(jnp.where(now, 0.0, s)))
            for s, now in zip(jax.tree.leaves(scores), jax.tree.leaves(after), strict=True)
        )
        start, end = float(flow(params, before)), float(flow(params, after))
        assert end >= start - lost - 1e-5 * start
        assert end < start


@given(seeds)
@few
def test_p5_signs_do_not_matter_bitwise(seed):
    params = residual_params(seed)
    rng = np.random.default_rng(seed)

    def flip(leaf):
        return leaf * jnp.asarray(rng.choice([-1.0, 1.0], leaf.shape), leaf.dtype)

    flipped = {**params, **{k: jax.tree.map(flip, params[k]) for k in ("stem", "up", "down")}}
    one, two = (score(RES, p, all_true(params)) for p in (params, flipped))
    chex.assert_trees_all_equal(one, two)


@given(seeds)
@few
def test_p5_permuting_hidden_units_permutes_the_scores(seed):
    params = mlp_params(seed)
    order = np.random.default_rng(seed).permutation(WIDTHS[1])
    moved = dict(params)
    moved["layer0"] = jax.tree.map(lambda leaf: leaf[..., order], params["layer0"])
    moved["layer1"] = {**params["layer1"], "kernel": params["layer1"]["kernel"][order]}
    one, two = (score(MLP, p, all_true(params)) for p in (params, moved))
    for name, axis in (("layer0", -1), ("layer1", 0)):
        want = jnp.take(one[name]["kernel"], order, axis)
        np.testing.assert_allclose(two[name]["kernel"], want, rtol=RTOL)


def test_p5_rescaling_a_unit_by_a_power_of_two_changes_no_score():
    params = mlp_params(3)
    moved = dict(params)
    moved["layer0"] = jax.tree.map(lambda leaf: leaf * 8.0, params["layer0"])
    moved["layer1"] = {**params["layer1"], "kernel": params["layer1"]["kernel"] / 8.0}
    one, two = (score(MLP, p, all_true(params)) for p in (params, moved))
    chex.assert_trees_all_equal(one, two)


def test_p5_powers_of_two_a_layer_leave_all_masks():
    params = mlp_params(4, bias=0.0)
    grown = {
        name: jax.tree.map(lambda leaf, f=2.0**power: leaf * f, params[name])
        for name, power in zip(params, (9, -5, 3), strict=True)
    }
    one, two = (sf.synflow(p, mlp, WIDTHS[:1], 5.0) for p in (params, grown))
    chex.assert_trees_all_equal(one, two)
