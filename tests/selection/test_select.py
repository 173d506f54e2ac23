"""Exact selection, against NumPy's stable sort."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synflow_jax.selection import (
    compare,
    count_true,
    cut_scores,
    flat_index,
    key_of,
    packing_of,
    select,
    value_of,
)

SHAPES = ((3, 4), (5,), (2, 1, 3))
SIZE = 23
run = jax.jit(select)


def expected(scores, kept, count):
    """Sort by score, then kept so far, then flat index; NaN last."""
    flat = np.concatenate([np.asarray(s, np.float64).ravel() for s in scores])
    was = np.concatenate([np.asarray(k).ravel() for k in kept])
    value = np.where(np.isnan(flat), -np.inf, flat) + 0.0
    unknown = np.isnan(flat)
    order = np.lexsort((np.arange(flat.size), ~was, -value, unknown))
    mask = np.zeros(flat.size, bool)
    mask[order[:count]] = True
    return mask


def flat(masks):
    return np.concatenate([np.asarray(m).ravel() for m in masks])


def split(values, dtype):
    ends = np.cumsum([np.prod(s) for s in SHAPES])[:-1]
    parts = np.split(np.asarray(values), ends)
    return [jnp.asarray(p.reshape(s), dtype) for p, s in zip(parts, SHAPES, strict=True)]


values = st.lists(
    st.one_of(
        st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, float("inf"), float("-inf"), float("nan")]),
        st.floats(width=32),
    ),
    min_size=SIZE,
    max_size=SIZE,
)


@given(values, st.lists(st.booleans(), min_size=SIZE, max_size=SIZE), st.integers(0, SIZE))
@settings(max_examples=150, deadline=None)
def test_matches_a_stable_sort(numbers, was, count):
    # XLA flushes subnormals to zero on the CPU, where NumPy does not: keep them out.
    tiny = np.finfo(np.float32).tiny
    numbers = [0.0 if abs(v) < tiny else v for v in numbers]
    scores, kept = split(np.array(numbers, np.float32), jnp.float32), split(was, bool)
    got = run(scores, kept, jnp.int32(count))
    np.testing.assert_array_equal(flat(got), expected(scores, kept, count))
    assert flat(got).sum() == count


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_count(dtype, x64):
    rng = np.random.default_rng(0)
    scores = split(rng.standard_normal(SIZE).round(1), dtype)
    kept = split(rng.integers(0, 2, SIZE), bool)
    for count in range(SIZE + 1):
        got = run(scores, kept, jnp.int32(count))
        np.testing.assert_array_equal(flat(got), expected(scores, kept, count))


def test_float64_is_not_rounded(x64):
    scores = [jnp.array([1.0, 1.0 + 2.0**-52, 1.0 - 2.0**-53])]
    got = select(scores, [jnp.ones(3, bool)], jnp.int32(1))
    assert flat(got).tolist() == [False, True, False]


def test_ties_go_to_weights_kept_so_far_then_by_flat_index():
    scores = [jnp.zeros((2, 3)), jnp.zeros((4,))]
    kept = [jnp.array([[False, True, False], [False, False, False]]), jnp.array([0, 0, 1, 0]) > 0]
    got = select(scores, kept, jnp.int32(4))
    assert flat(got).tolist() == [True, True, True, False, False, False, False, False, True, False]


def test_flat_index_counts_in_c_order():
    index = flat_index((2, 3, 4), np.array(5), jnp.uint32(1))
    np.testing.assert_array_equal(index, np.arange(24).reshape(2, 3, 4) + 5)
    rows = flat_index((2, 3, 4), np.array([100, 7]), jnp.uint32(1))
    want = np.arange(12).reshape(1, 3, 4) + np.array([100, 7]).reshape(2, 1, 1)
    np.testing.assert_array_equal(rows, want)


def test_keys_order_as_floats_do(x64):
    numbers = np.array([-np.inf, -3.0, -1e-300, 0.0, 1e-300, 1.0, np.inf])
    key = key_of(jnp.asarray(numbers))
    assert (np.diff(np.asarray(key).astype(object)) > 0).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_keys_and_values_are_inverse_in_every_float(dtype, x64):
    numbers = jnp.array([-np.inf, -3.0, -1e-3, 0.0, 1e-3, 1.0, np.inf], dtype)
    key = key_of(numbers)
    assert (value_of(key, numbers.dtype) == numbers).all()
    assert value_of(jnp.zeros_like(key[0]), numbers.dtype) == -jnp.inf
    assert jnp.isnan(value_of(key[-1] + 1, numbers.dtype))


def test_the_cut_of_a_hundred_thousand():
    scores = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
    parts = scores[:60_000].reshape(600, 100), scores[60_000:]
    parts = [jnp.asarray(part) for part in parts]
    order = np.sort(scores)[::-1]
    for count in (1, 17, 50_000, 99_999):
        low, _, exact = cut_scores(parts, jnp.int32(count))
        assert exact
        assert order[count] < value_of(low, jnp.float32) <= order[count - 1]


def test_vmap_selects_each_row_by_itself():
    rng = np.random.default_rng(1)
    scores = jnp.asarray(rng.standard_normal((6, 40)).round(1), jnp.float32)
    kept = jnp.asarray(rng.integers(0, 2, (6, 40)), bool)
    counts = jnp.array([0, 1, 7, 20, 39, 40], jnp.int32)
    got = jax.vmap(lambda s, m, c: select([s], [m], c)[0])(scores, kept, counts)
    for row in range(6):
        want = expected([scores[row]], [kept[row]], int(counts[row]))
        np.testing.assert_array_equal(np.asarray(got[row]), want)


@pytest.mark.parametrize("near", [0.0, 1e30, -1e30, float("nan"), "right", "close"])
def test_a_guess_changes_no_cut(near):
    scores = jnp.asarray(np.random.default_rng(2).standard_normal(5000), jnp.float32)
    right = cut_scores([scores], jnp.int32(700))
    guess = {"right": float(right.low), "close": float(right.low) + 4e5}.get(near, near)
    with jax.enable_x64(True):
        guessed = cut_scores([scores], jnp.int32(700), jnp.float64(guess))
    assert guessed.exact
    assert ((scores >= value_of(guessed.low, scores.dtype)).sum()) == 700


def test_rows_that_were_stacked_are_numbered_as_they_were():
    rng = np.random.default_rng(3)
    leaves = [jnp.asarray(rng.integers(0, 2, s), jnp.float32) for s in ((2, 3), (4,), (2, 3))]
    kept = [jnp.asarray(rng.integers(0, 2, leaf.shape), bool) for leaf in leaves]
    packing = packing_of(leaves, tuple(x.shape for x in leaves))
    assert packing.packs == ((0, 2), (1,))
    starts = packing.starts((6, 4, 6))
    stacked = jax.jit(lambda scores, masks, count: select(scores, masks, count, starts))
    for count in range(17):
        plain = run(leaves, kept, jnp.int32(count))
        packed = stacked(packing.pack(leaves), packing.pack(kept), jnp.int32(count))
        np.testing.assert_array_equal(flat(plain), flat(packing.unpack(packed)))


def test_ranks_of_64_bits_choose_the_same_ties():
    scores = [jnp.zeros((2, 3)), jnp.ones((2, 2)), jnp.zeros(4)]
    kept = [
        jnp.array([[0, 1, 0], [0, 0, 1]]) > 0,
        jnp.zeros((2, 2), bool),
        jnp.array([1, 0, 0, 0]) > 0,
    ]
    wide = jax.jit(partial(select, wide_ranks=True))
    short = [flat(run(scores, kept, jnp.int32(count))) for count in range(15)]
    long = [flat(wide(scores, kept, jnp.int32(count))) for count in range(15)]
    np.testing.assert_array_equal(short, long)
    assert [mask.sum() for mask in long] == list(range(15))


@pytest.mark.usefixtures("fully_compiled")
def test_counts_go_past_what_int32_holds():
    # 3·2^30 scores that are never stored: XLA counts without making them. A third are 1, 2 and 3.
    @jax.jit
    def find(thirds, wanted):
        scores = jnp.broadcast_to(thirds[:, None, None], (3, 2**10, 2**20))
        counts = count_true([(scores > 0, scores > 1)])
        return counts, compare(counts, wanted)

    with jax.enable_x64(True):
        wanted = jnp.int64(2**31)
    counts, (enough, exact) = find(jnp.array([3.0, 1.0, 2.0]), wanted)
    assert [int(count) for count in counts] == [3 * 2**30, 2**31]
    assert enough.tolist() == [True, True]
    assert exact.tolist() == [False, True]


def test_nan_that_comes_last_stays_where_all_stay():
    scores = [jnp.array([0.0, 0.0, jnp.nan])]
    for count, want in ((3, [True] * 3), (2, [True, True, False])):
        assert flat(run(scores, [jnp.zeros(3, bool)], jnp.int32(count))).tolist() == want


def test_scalars_are_counted_too():
    assert int(count_true([(jnp.array(True),), (jnp.array(False),)])[0]) == 1
    got = select([jnp.float32(1.0), jnp.float32(2.0)], [jnp.array(True)] * 2, jnp.int32(1))
    assert flat(got).tolist() == [False, True]
