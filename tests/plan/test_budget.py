"""Counts: exact, computed in float64, whatever the rounding of a product."""

import math
from fractions import Fraction
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import synflow_jax as sf
from synflow_jax.plan import make_plan

SHAPES = ((3, 3, 16, 32), (32, 64), (64, 10))
SIZES = [4608, 2048, 640]


@given(st.integers(1, 7295), st.integers(1, 3))
@settings(max_examples=200, deadline=None)
def test_rho_that_is_a_ratio_of_counts_keeps_that_count(kept, exponent):
    total = sum(SIZES)
    density = np.array([1.0 / (total / kept)])
    assert sf.globally(SHAPES, density).item() == kept
    rounds = 10**exponent
    last = sf.exponential(float(rounds), rounds, total / kept)
    assert sf.globally(SHAPES, np.array([last])).item() == kept


@given(st.fractions(Fraction(1, 100), 1))
@settings(max_examples=100, deadline=None)
def test_counts_round_up(density):
    total = sum(SIZES)
    want = math.ceil(total * density - Fraction(total, 10**12) * density)
    assert sf.globally(SHAPES, np.array([float(density)])).item() == want


def test_a_fraction_of_a_weight_is_a_weight_even_in_ten_million():
    # Round 48 of 100 on VGG-11 at rho = 10: N·d = 3053972.0015; the reference keeps one more.
    shapes, density = ((9_222_848,),), np.array([10.0**-0.48])
    assert sf.globally(shapes, density).item() == 3_053_973


def test_layerwise_rounds_each_layer_up():
    got = sf.layerwise(SHAPES, np.array([0.1, 0.001]))
    assert got.tolist() == [[461, 205, 64], [5, 3, 1]]


@pytest.mark.parametrize("density", [1.0, 0.5, 0.1, 0.01, 0.001])
def test_erk_keeps_the_total_and_its_proportions(density):
    (counts,) = sf.erk(SHAPES, np.array([density]))
    assert counts.sum() == math.ceil(sum(SIZES) * density - 1e-6)
    assert (counts <= SIZES).all()
    sums = np.array([sum(shape) for shape in SHAPES], float)
    free = counts < np.array(SIZES)
    if free.sum() > 1:
        share = counts[free] / sums[free]
        # Each count is within one weight of its real-valued share.
        assert (np.abs(share - share.mean()) * sums[free] <= 2.0).all()


def test_linear_and_exponential_end_where_they_should():
    k = np.arange(1, 101)
    for schedule in (sf.exponential, sf.linear):
        densities = schedule(k, 100, 50.0)
        assert densities[-1] == pytest.approx(1 / 50)
        assert (np.diff(densities) < 0).all()
    ratios = sf.exponential(k, 100, 50.0)[1:] / sf.exponential(k, 100, 50.0)[:-1]
    np.testing.assert_allclose(ratios, 50.0**-0.01)
    np.testing.assert_allclose(np.diff(sf.linear(k, 100, 50.0)), -0.98 / 100)


def test_more_weights_than_int32_counts_have_a_budget():
    params = {
        "experts": {"kernel": jax.ShapeDtypeStruct((8, 2**15, 2**15), jnp.bfloat16)},
        "output": {"kernel": jax.ShapeDtypeStruct((2**15, 2**15), jnp.bfloat16)},
    }

    def count(rho):
        kept = make_plan(params, rho, 2, schedule=sf.linear, prunable=sf.plan.is_prunable)[1]
        return kept

    counts = count(2.0)
    assert counts.dtype == jnp.int64
    assert counts.tolist() == [[27 * 2**28], [9 * 2**29]]
    traced = jax.jit(count)(2.0)
    assert traced.tolist() == counts.tolist()
    masks, info = jax.eval_shape(
        lambda p: sf.prune(p, sf.saliency.magnitude_saliency(), 2.0, 1), params
    )
    assert masks["experts"]["kernel"].shape == (8, 2**15, 2**15)
    assert info.kept.dtype == jnp.int64


@pytest.mark.parametrize("schedule", [sf.exponential, sf.certified(most=3)])
def test_more_weights_than_int32_counts_are_measured_with_their_flow(schedule):
    params = {"w": jax.ShapeDtypeStruct((2**16, 2**15), jnp.bfloat16)}
    saliency = sf.synflow_saliency(lambda p, x: x @ p["w"], (2**16,))
    run = partial(sf.prune, saliency=saliency, rho=2.0, rounds=3, schedule=schedule)
    masks, info = jax.eval_shape(run, params)
    assert masks["w"].shape == (2**16, 2**15)
    assert (info.kept.shape, info.kept.dtype) == ((3, 1), jnp.int64)
    assert info.log2_flow.shape == (4,)
