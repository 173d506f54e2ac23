"""Counts: exact, computed in float64, whatever the rounding of a product."""

import math
from fractions import Fraction
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import assume, given, settings
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


ROOTS = [Fraction(a, b) for a, b in ((10, 3), (10, 7), (100, 33), (7, 3), (2, 1), (1, 1), (37, 11))]
COARSE = {jnp.bfloat16: 50, jnp.float16: 1000, jnp.float32: 10**6, jnp.float64: 10**6}


def counts_of(size, rho, rounds, **options):
    """Count what stays of one leaf of `size` weights and another of a third of them."""
    params = {name: jax.ShapeDtypeStruct((1, n), jnp.float32) for name, n in size.items()}
    options = {"prunable": sf.plan.is_prunable, **options}
    return make_plan(params, rho, rounds, **options)[1]


def tells(product, dtype):
    """Whether ⌈p⌉ is known where p is off by a dtype's rounding, twice its epsilon each way."""
    off = 2 * product * Fraction(float(jnp.finfo(dtype).eps))
    return product.denominator == 1 or math.ceil(product - off) == math.ceil(product + off)


@pytest.mark.parametrize("rounds", [1, 3])
@pytest.mark.parametrize("scope", [sf.globally, sf.layerwise])
@pytest.mark.parametrize("dtype", COARSE)
def test_a_rounded_rho_keeps_what_the_fraction_keeps(dtype, scope, rounds, x64):
    """With ρ = q^n, round k keeps ⌈N/q^k⌉, whatever dtype ρ came in and whether it is traced."""
    size = COARSE[dtype]
    sizes = {"a": size, "c": size // 10 * 3}
    traced = jax.jit(lambda rho: counts_of(sizes, rho, rounds, scope=scope))
    groups = [sum(sizes.values())] if scope is sf.globally else list(sizes.values())
    told = 0
    for root in ROOTS:
        products = [Fraction(n) / root**k for k in range(1, rounds + 1) for n in groups]
        want = np.array([math.ceil(product) for product in products])
        known = np.array([tells(product, dtype) for product in products])
        told += known.sum()
        rho = float(root**rounds)
        assert counts_of(sizes, rho, rounds, scope=scope).ravel().tolist() == want.tolist()
        got = np.asarray(traced(jnp.asarray(rho, dtype))).ravel()
        assert got[known].tolist() == want[known].tolist()
        assert (abs(got - want) <= 1).all()
        concrete = counts_of(sizes, jnp.asarray(rho, dtype), rounds, scope=scope).ravel()
        assert concrete.tolist() == got.tolist()
    assert told > len(ROOTS) * len(products) / 2


def test_a_density_inverted_in_float32_keeps_what_it_keeps_in_float64():
    sizes = {"a": 1000, "c": 500}
    percents = jnp.arange(1, 100)
    traced = jax.vmap(lambda d: counts_of(sizes, 1 / d, 1, schedule=sf.linear))
    got = traced(percents.astype(jnp.float32) / 100).ravel().tolist()
    assert got == [15 * percent for percent in percents.tolist()]


@given(st.integers(1, 10**6), st.integers(101, 10**5))
@settings(max_examples=200, deadline=None)
def test_a_true_fraction_is_rounded_up_where_float32_can_tell(size, hundredths):
    rho = np.float32(hundredths / 100)
    product = Fraction(size) / Fraction(float(rho))
    assume(product.denominator > 1 and tells(product, jnp.float32))
    assert int(counts_of({"a": size}, rho, 1)[0, 0]) == math.ceil(product)


@pytest.mark.parametrize("size", [2**31 - 1, 10**9 + 1, 10**7])
def test_a_whole_rho_is_exact_in_every_dtype(size):
    traced = jax.jit(lambda rho: counts_of({"a": size}, rho, 1))
    for rho in (1, 2, 3, 7):
        assert int(traced(jnp.float32(rho))[0, 0]) == -(-size // rho)


def test_erk_settles_its_total_where_rho_was_rounded():
    sizes = {"a": 700, "c": 300}
    got = counts_of(sizes, np.float32(1 / 0.3), 1, scope=sf.erk)
    assert got.tolist() == counts_of(sizes, 1 / 0.3, 1, scope=sf.erk).tolist()
    assert int(got.sum()) == 300


def test_gradual_pruning_reaches_the_count_of_a_traced_rho():
    params = {"w": jnp.arange(1.0, 1001.0).reshape(10, 100)}

    @jax.jit
    def kept(rho):
        tx = sf.gradual_magnitude(optax.sgd(0.0), rho, end=1)
        state = tx.update(params, tx.init(params), params)[1]
        return state.masks["w"].sum()

    assert int(kept(1 / 0.3)) == 300


@pytest.mark.parametrize(("rho", "of_each"), [(1 / 0.15, 2), (2.5, 4), (1.01, 8), (3.999, 3)])
def test_runs_that_cannot_reach_rho_say_what_they_reach(rho, of_each):
    params = {"w": jnp.arange(1.0, 33.0).reshape(16, 2)}
    reached, next_one = (f"{8 / n:.6g}" for n in (of_each, of_each - 1))
    near = rf"rho={reached}; pass 8/{of_each} = {reached} or 8/{of_each - 1} = {next_one} as rho"
    with pytest.warns(UserWarning, match=near) as caught:
        masks = sf.magnitude(params, rho, scope=sf.runs(8))
    assert int(masks["w"].sum()) == 4 * of_each
    assert [record.category for record in caught] == [UserWarning]
    assert [record.filename for record in caught] == [__file__]


@pytest.mark.parametrize("kept", range(1, 9))
def test_runs_that_reach_rho_do_not_warn(kept):
    params = {"w": jnp.arange(1.0, 33.0).reshape(16, 2)}
    for rho in (8 / kept, np.float32(8 / kept), jnp.bfloat16(8 / kept)):
        assert int(sf.magnitude(params, rho, scope=sf.runs(8))["w"].sum()) == 4 * kept
        traced = jax.jit(lambda rho: sf.magnitude(params, rho, scope=sf.runs(8)))
        assert int(traced(jnp.asarray(rho))["w"].sum()) == 4 * kept


def test_a_limit_is_written_so_that_it_is_allowed():
    params = {
        name: jax.ShapeDtypeStruct((1, n), jnp.float32) for name, n in (("a", 10**7), ("c", 9))
    }
    with pytest.raises(ValueError, match="at most") as caught:
        make_plan(params, 9e6, min_keep=7 / 2e7, prunable=sf.plan.is_prunable)
    written = float(str(caught.value).split("at most ")[1].split(" as rho")[0])
    assert written <= (10**7 + 9) / 4


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
