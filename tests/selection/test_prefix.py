"""The largest prefix that fits a budget, against a sort in float64."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from synflow_jax.selection import prefix_size


def by_sorting(scores, kept, budget):
    """Add up the sorted scores in float64 until they no longer fit."""
    flat = np.concatenate(
        [np.asarray(s, np.float64)[np.asarray(m)] for s, m in pairs(scores, kept)]
    )
    running = np.cumsum(np.sort(np.maximum(flat, 0.0)))
    return int(np.searchsorted(running, float(budget), side="right"))


def pairs(scores, kept):
    return zip(scores, kept, strict=True)


SHAPES = ((3, 4), (5,), (2, 1, 3))
SIZE = 23
find = jax.jit(prefix_size)
some = st.one_of(st.sampled_from([0.0, 1.0, 1.0, 0.5, 3.0, 1e-6]), st.floats(0, 8, width=16))


@given(
    st.lists(some, min_size=SIZE, max_size=SIZE),
    st.lists(st.booleans(), min_size=SIZE, max_size=SIZE),
    st.floats(0.015625, 100, width=16),
    st.integers(-60, 60),
)
@settings(max_examples=200, deadline=None)
def test_prefix_matches_a_sort(numbers, was, budget, exponent):
    ends = np.cumsum([np.prod(s) for s in SHAPES])[:-1]
    flat = np.array(numbers, np.float32) * np.float32(2.0**exponent)
    scores = [p.reshape(s) for p, s in pairs(np.split(flat, ends), SHAPES)]
    kept = [p.reshape(s) for p, s in pairs(np.split(np.array(was), ends), SHAPES)]
    budget = np.float32(budget) * np.float32(2.0**exponent)
    got = int(find([jnp.asarray(s) for s in scores], [jnp.asarray(k) for k in kept], budget))
    assert got == by_sorting(scores, kept, budget)


def test_prefix_of_a_million_equal_scores_does_not_go_astray():
    # Added one by one in float32, 0.1 stops counting at 2^21 or is off by hundreds before.
    scores = jnp.full((1000, 3000), 0.1, jnp.float32)
    want = by_sorting([scores], [np.ones(scores.shape, bool)], 2e5)
    got = int(find([scores], [jnp.ones(scores.shape, bool)], jnp.float32(2e5)))
    # Rounded up to whole units of the budget's 2^-39: at most one part in 10^5 less, never more.
    assert want * (1 - 1e-5) <= got <= want


def test_prefix_in_float64(x64):
    scores = jnp.array([1.0, 2.0**-40, 1.0 + 2.0**-50, 0.0, 7.0])
    ones = jnp.ones(5, bool)
    for budget, want in ((2.0**-41, 1), (1.0, 2), (1.0 + 2.0**-40, 3), (2.0 + 2.0**-39, 4)):
        assert int(prefix_size([scores], [ones], jnp.float64(budget))) == want
