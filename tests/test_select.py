"""Exact selection, against NumPy's stable sort."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synflow_jax.select import flat_index, kth_largest, order_key, select

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
    np.testing.assert_array_equal(flat_index((2, 3, 4), 5), np.arange(24).reshape(2, 3, 4) + 5)


def test_keys_order_as_floats_do(x64):
    numbers = np.array([-np.inf, -3.0, -1e-300, 0.0, 1e-300, 1.0, np.inf])
    key = order_key(jnp.asarray(numbers))
    assert (np.diff(np.asarray(key).astype(object)) > 0).all()


def test_kth_largest_of_a_hundred_thousand():
    scores = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
    parts = scores[:60_000].reshape(600, 100), scores[60_000:]
    keys = [order_key(jnp.asarray(part)) for part in parts]
    for count in (1, 17, 50_000, 100_000):
        cut = kth_largest(keys, jnp.int32(count))
        assert int(cut) == int(order_key(jnp.asarray(np.sort(scores)[-count])))


def test_vmap_selects_each_row_by_itself():
    rng = np.random.default_rng(1)
    scores = jnp.asarray(rng.standard_normal((6, 40)).round(1), jnp.float32)
    kept = jnp.asarray(rng.integers(0, 2, (6, 40)), bool)
    counts = jnp.array([0, 1, 7, 20, 39, 40], jnp.int32)
    got = jax.vmap(lambda s, m, c: select([s], [m], c)[0])(scores, kept, counts)
    for row in range(6):
        want = expected([scores[row]], [kept[row]], int(counts[row]))
        np.testing.assert_array_equal(np.asarray(got[row]), want)
