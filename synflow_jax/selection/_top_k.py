"""Exact selection without a sort: what reaches the cut stays, and ties are broken one by one.

Ties are broken by what was kept so far, then by flat index (leaves in tree order, C order).
"""

import math
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from synflow_jax.selection._bracket import Cut, cut_scores, narrow
from synflow_jax.selection._counting import compare, total
from synflow_jax.selection._keys import value_of

PAST_UINT32 = 2**32
TIE_PIVOTS = 3  # ties are few and soon told apart; more would take longer to compile


def reaches(score: jax.Array, key: jax.Array) -> jax.Array:
    """Tell which scores have at least this key: all of them, NaN included, have 0."""
    return (score >= value_of(key, score.dtype)) | (key == 0)


def select(
    scores: list[jax.Array],
    kept: list[jax.Array],
    count: jax.Array,
    starts: Sequence[np.ndarray] | None = None,
    cut: Cut | None = None,
) -> list[jax.Array]:
    """Keep the `count` largest of all scores together; ties go to `kept`, then by flat index.

    Args:
      scores: arrays of one floating dtype, signed or not.
      kept: bool arrays of the same shapes, the masks so far.
      count: how many to keep, whole scalar, from 0 to the number of scores.
      starts: for each array, the flat index of the first entry, or of the first entry of each row
        of its leading axis; without it, arrays are numbered as they come.
      cut: what `cut_scores` found, where it was asked before.

    Returns:
      Bool arrays with exactly `count` entries True.
    """
    low, high, exact = cut_scores(scores, count) if cut is None else cut
    sizes = [math.prod(score.shape) for score in scores]
    starts = [np.array(sum(sizes[:i])) for i in range(len(sizes))] if starts is None else starts

    def clean() -> list[jax.Array]:
        return [reaches(score, low) for score in scores]

    def tied() -> list[jax.Array]:
        above = [score >= value_of(high, score.dtype) for score in scores]
        ties = [reaches(score, low) & ~over for score, over in zip(scores, above, strict=True)]
        chosen = _first_ties(ties, above, kept, count, starts, exact)
        return [over | tie for over, tie in zip(above, chosen, strict=True)]

    return lax.cond(exact, clean, tied)


def flat_index(shape: tuple[int, ...], start: np.ndarray, one: jax.Array) -> jax.Array:
    """Number the entries of a leaf, or of each row, in C order from `start`, as `one` times it."""
    first = jnp.asarray(start.reshape(start.shape + (1,) * (len(shape) - start.ndim)), one.dtype)
    index = jnp.broadcast_to(first, shape)
    for axis in range(start.ndim, len(shape)):
        stride = jnp.array(math.prod(shape[axis + 1 :]), one.dtype) * one
        index = index + lax.broadcasted_iota(one.dtype, shape, axis) * stride
    return index


def _ranks(
    kept: list[jax.Array], starts: Sequence[np.ndarray], later: jax.Array, pivot: jax.Array
) -> list[jax.Array]:
    """Number the entries by flat index, those that were not kept so far from `later` on."""
    # A 1 that XLA does not know: else it would number all entries before the search and hold the
    # numbers in memory.
    one = (pivot != 2 * later + 1).astype(later.dtype)
    return [
        flat_index(mask.shape, start, one) + jnp.where(mask, 0 * later, later * one)
        for mask, start in zip(kept, starts, strict=True)
    ]


def _first_ties(
    ties: list[jax.Array],
    above: list[jax.Array],
    kept: list[jax.Array],
    count: jax.Array,
    starts: Sequence[np.ndarray],
    exact: jax.Array,
) -> list[jax.Array]:
    """Choose of the ties as many as `above` leaves: kept so far first, then by flat index."""
    size = sum(math.prod(tie.shape) for tie in ties)
    with jax.enable_x64(True):
        later = lax.full((), size, jnp.uint32 if 2 * size + 1 < PAST_UINT32 else jnp.uint64)
        ranks = partial(_ranks, kept, starts, later)
        high, there = total(list(zip(above, ties, strict=True)))
        # Of the ties, those of the last ranks go: as many as are too many.
        goes = lax.sub(lax.add(high, there), lax.convert_element_type(count, jnp.int64))

        def probe(pivots: jax.Array) -> tuple[jax.Array, jax.Array]:
            pairs = list(zip(ranks(pivots[0]), ties, strict=True))
            last = [tuple(tie & (r >= pivots[j]) for j in range(TIE_PIVOTS)) for r, tie in pairs]
            return compare(total(last), goes)

        # Under vmap both branches run: where there is nothing to find, no time is spent on it.
        last = jnp.where(exact, 0 * later, 2 * later + 1)
        end = narrow(0 * later, last, probe, pivots=TIE_PIVOTS).low
        return [tie & (rank < end) for tie, rank in zip(ties, ranks(end), strict=True)]
