"""What a round is measured by, against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from synflow_jax.pruning import measure


def test_counts_costs_and_tops_of_each_layer():
    rng = np.random.default_rng(0)
    scores = [rng.standard_normal(s).astype(np.float32) for s in ((2, 3, 4), (1, 5))]
    before = [rng.random(s.shape) < 0.7 for s in scores]
    after = [rng.random(s.shape) < 0.5 for s in scores]
    arrays = [[jnp.asarray(x) for x in xs] for xs in (scores, before, after)]
    kept, lost, top, negative = jax.jit(measure)(*arrays)
    assert [k.tolist() for k in kept] == [a.sum(tuple(range(1, a.ndim))).tolist() for a in after]
    went = [b & ~a for b, a in zip(before, after, strict=True)]
    cost = sum(s[w].astype(np.float64).sum() for s, w in zip(scores, went, strict=True))
    assert float(lost) == pytest.approx(cost, rel=1e-6)
    for score, most in zip(scores, top, strict=True):
        np.testing.assert_array_equal(most, np.abs(score).max(tuple(range(1, score.ndim))))
    for score, below in zip(scores, negative, strict=True):
        assert below.tolist() == (score < 0).any(tuple(range(1, score.ndim))).tolist()


@pytest.mark.parametrize("lowest", [-0.0, -1e-30])
def test_only_what_is_below_zero_is_negative(lowest):
    scores = jnp.array([[0.0, lowest], [3.0, 2.0], [jnp.nan, 1.0]])
    masks = jnp.ones(scores.shape, bool)
    assert measure([scores], [masks], [masks])[3][0].tolist() == [lowest < 0, False, False]


def test_three_million_equal_costs_do_not_go_astray():
    # Added one by one in float32, 0.1 stops counting at 2^21 or is off by hundreds before.
    scores = jnp.full((1, 1000, 3000), 0.1, jnp.float32)
    masks = jnp.ones(scores.shape, bool)
    assert float(measure([scores], [masks], [~masks])[1]) == pytest.approx(
        float(np.float32(0.1)) * 3e6, rel=1e-7
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_seen(bad):
    scores = jnp.array([[1.0, bad, 2.0], [1.0, 2.0, 3.0]])
    masks = jnp.ones(scores.shape, bool)
    top = measure([scores], [masks], [masks])[2][0]
    assert jnp.isfinite(top).tolist() == [False, True]


def test_what_had_gone_before_has_no_score():
    scores = jnp.array([[1.0, -jnp.inf], [-jnp.inf, jnp.nan]])
    before = jnp.array([[True, False], [False, False]])
    kept, lost, top, negative = measure([scores], [before], [~before & False], nested=True)
    assert negative[0].tolist() == [False, False]
    assert (kept[0].tolist(), float(lost), top[0].tolist()) == ([0, 0], 1.0, [1.0, 0.0])
