"""The cut between kept and pruned scores, found by counting instead of sorting.

Keys are unsigned integers in the order of floats. The search holds a bracket of keys around the
cut. Each pass turns seven pivots back into floats, counts how many scores reach each of them, and
shrinks the bracket to an eighth, until a pivot is reached by exactly as many scores as are to be
kept. Only counts leave a leaf, so that leaves are never concatenated and their shardings do not
matter.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from synflow_jax.selection._counting import compare, count_true
from synflow_jax.selection._keys import key_of, octave_of, unsigned_of, value_of

PIVOTS = 7
OFFSETS = (-0.5, -0.125, -0.0625, 0.0, 0.0625, 0.125, 0.5)  # octaves
Probe = Callable[[jax.Array], tuple[jax.Array, jax.Array]]


class Cut(NamedTuple):
    """The bracket in which a search ended.

    Attributes:
      low: the largest key known to fit.
      high: the smallest key known not to fit; low + 1, unless low is exact.
      exact: whether exactly `count` scores reach low.
    """

    low: jax.Array
    high: jax.Array
    exact: jax.Array


def cut_scores(scores: list[jax.Array], count: jax.Array, near: jax.Array | None = None) -> Cut:
    """Find a key that exactly `count` scores reach, or the largest that at least `count` reach.

    Args:
      scores: arrays of one floating dtype.
      count: whole scalar, from 0 to the number of scores.
      near: a guess of that key, a float64 scalar; a good one saves passes.

    Returns:
      low: that key, or a key between it and the next score; high: a key that fewer scores reach;
      exact: whether exactly `count` scores reach low.
    """
    dtype = scores[0].dtype
    start = jnp.zeros((), unsigned_of(dtype))
    end = key_of(jnp.array(jnp.inf, dtype)) + 1

    def probe(pivots: jax.Array) -> tuple[jax.Array, jax.Array]:
        values = value_of(pivots, dtype)
        reached = [tuple(score >= values[j] for j in range(PIVOTS)) for score in scores]
        return compare(count_true(reached), count)

    return narrow(start, end, probe, None if near is None else _pivots_near(near, dtype))


def narrow(
    low: jax.Array,
    high: jax.Array,
    probe: Probe,
    first: jax.Array | None = None,
    pivots: int = PIVOTS,
) -> Cut:
    """Search for the largest key that fits, where all keys below a fitting one fit as well.

    Args:
      low: a key that fits, an unsigned scalar.
      high: a key that does not fit.
      probe: probe(keys) -> (which of the keys fit, which of those settle the search).
      first: the keys to probe first, ascending; by default they divide the bracket evenly.
      pivots: how many keys are probed in one pass.

    Returns:
      The last bracket: low and high are neighbours, or low settles the search.
    """

    def unsettled(state: tuple[Cut, jax.Array]) -> jax.Array:
        return (state[0].high - state[0].low > 1) & ~state[0].exact

    def step(state: tuple[Cut, jax.Array]) -> tuple[Cut, jax.Array]:
        cut, tried = state
        fits, exact = probe(tried)
        fitting = jnp.sum(fits)
        ends = jnp.concatenate([cut.low[None], tried, cut.high[None]])
        hit = jnp.concatenate([jnp.zeros(1, bool), exact & fits])
        low, high = ends[fitting], ends[fitting + 1]
        return Cut(low, high, hit[fitting]), _even_pivots(low, high, pivots)

    start = _even_pivots(low, high, pivots) if first is None else jnp.clip(first, low, high)
    return lax.while_loop(unsettled, step, (Cut(low, high, jnp.zeros((), bool)), start))[0]


def _even_pivots(low: jax.Array, high: jax.Array, pivots: int) -> jax.Array:
    """Divide a bracket into `pivots` + 1 parts of nearly equal size."""
    steps = jnp.arange(1, pivots + 1, dtype=low.dtype)
    part, rest = (high - low) // (pivots + 1), (high - low) % (pivots + 1)
    # (high - low) * steps may overflow, these two products do not.
    return low + part * steps + rest * steps // (pivots + 1)


def _pivots_near(near: jax.Array, dtype: Any) -> jax.Array:
    """Place seven pivots at a guess and 1/16, 1/8 and 1/2 octave to both sides of it."""
    with jax.enable_x64(True):
        unsigned = unsigned_of(dtype)
        pivots = near + jnp.array(OFFSETS, jnp.float64) * octave_of(dtype)
        most = float(jnp.iinfo(unsigned).max) * (1 - 2.0**-52)
        return lax.convert_element_type(jnp.clip(pivots, 0.0, most), unsigned)
