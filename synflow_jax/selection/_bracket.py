"""The cut between kept and pruned scores, found by counting.

Floats and the whole numbers of their bits order alike. A bracket of such numbers, the keys, holds
the cut; each pass counts how many scores reach each of seven pivots and leaves an eighth of it,
until a pivot is reached by exactly as many as shall stay. Only counts leave a leaf, so that leaves
are never concatenated and the layout across devices does not matter.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from synflow_jax.selection._counting import compare, total
from synflow_jax.selection._keys import key_of, octave_of, unsigned_of, value_of

PIVOTS = 7
OFFSETS = (-0.5, -0.125, -0.0625, 0.0, 0.0625, 0.125, 0.5)  # octaves
Probe = Callable[[jax.Array], tuple[jax.Array, jax.Array]]


class Cut(NamedTuple):
    """Where a search ended: low fits, high does not; neighbours unless low settles the search."""

    low: jax.Array
    high: jax.Array
    exact: jax.Array  # whether low settles it


def narrow(
    low: jax.Array,
    high: jax.Array,
    probe: Probe,
    first: jax.Array | None = None,
    pivots: int = PIVOTS,
) -> Cut:
    """Close a bracket of keys around the largest that fits.

    Args:
      low: an unsigned scalar that fits, as all below it do.
      high: one that does not, as all above it.
      probe: probe(pivots) -> which of them fit, and which of those settle the search.
      first: the pivots to begin with, in order; without them, they divide the bracket evenly.
      pivots: how many.

    Returns:
      low and high, now neighbours, or low settles the search; and whether it does.
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
        return Cut(low, high, hit[fitting]), _divide(low, high, pivots)

    start = _divide(low, high, pivots) if first is None else jnp.clip(first, low, high)
    return lax.while_loop(unsettled, step, (Cut(low, high, jnp.zeros((), bool)), start))[0]


def _divide(low: jax.Array, high: jax.Array, pivots: int) -> jax.Array:
    steps = jnp.arange(1, pivots + 1, dtype=low.dtype)
    part, rest = (high - low) // (pivots + 1), (high - low) % (pivots + 1)
    return low + part * steps + rest * steps // (pivots + 1)  # their product may be out of range


def cut_scores(scores: list[jax.Array], count: jax.Array, near: jax.Array | None = None) -> Cut:
    """Find the largest key that `count` scores reach.

    Args:
      scores: arrays of one floating dtype.
      count: whole scalar, from 0 to the number of scores.
      near: a guess of that key, a float64 scalar; a good one saves passes.

    Returns:
      low, the key, or one between it and the next score; high, which fewer reach; and whether
      exactly `count` reach low.
    """
    dtype = scores[0].dtype
    start = jnp.zeros((), unsigned_of(dtype))
    end = key_of(jnp.array(jnp.inf, dtype)) + 1

    def probe(pivots: jax.Array) -> tuple[jax.Array, jax.Array]:
        values = value_of(pivots, dtype)
        reached = [tuple(score >= values[j] for j in range(PIVOTS)) for score in scores]
        return compare(total(reached), count)

    return narrow(start, end, probe, None if near is None else _around(near, dtype))


def _around(near: jax.Array, dtype: Any) -> jax.Array:
    """Put seven pivots about a guess: at it, and a sixteenth, an eighth and half an octave off."""
    with jax.enable_x64(True):
        unsigned = unsigned_of(dtype)
        pivots = near + jnp.array(OFFSETS, jnp.float64) * octave_of(dtype)
        most = float(jnp.iinfo(unsigned).max) * (1 - 2.0**-52)
        return lax.convert_element_type(jnp.clip(pivots, 0.0, most), unsigned)
