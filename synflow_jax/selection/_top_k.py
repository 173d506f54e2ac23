"""Exact top-k over several arrays without a sort: scores above the cut stay, ties are ranked.

Of equal scores at the cut, those kept so far go first, then by flat index (leaves in tree order,
entries in C order).
"""

import math
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from synflow_jax.selection._bracket import Cut, cut_scores, narrow
from synflow_jax.selection._counting import compare, count_true
from synflow_jax.selection._keys import value_of

PAST_UINT32 = 2**32
TIE_PIVOTS = 3  # the search among ties is short; more pivots would take longer to compile


def select(
    scores: list[jax.Array],
    kept: list[jax.Array],
    count: jax.Array,
    starts: Sequence[np.ndarray] | None = None,
    cut: Cut | None = None,
    *,
    wide_ranks: bool = False,
) -> list[jax.Array]:
    """Select the `count` largest of all scores; of ties, those in `kept` first, then by flat index.

    Args:
      scores: arrays of one floating dtype, of any sign.
      kept: bool arrays of the same shapes, the masks so far.
      count: how many to keep, whole scalar, from 0 to the number of scores.
      starts: for each array, the flat index of its first entry, or of the first entry of each row
        of its leading axis; by default arrays are numbered one after the other.
      cut: the result of `cut_scores` for these scores and count, if it is known.
      wide_ranks: rank ties by 64-bit integers even where 32 bits are enough.

    Returns:
      Bool arrays with exactly `count` entries True.
    """
    low, high, exact = cut_scores(scores, count) if cut is None else cut
    sizes = [math.prod(score.shape) for score in scores]
    starts = [np.array(sum(sizes[:i])) for i in range(len(sizes))] if starts is None else starts

    def without_ties() -> list[jax.Array]:
        return [reaches(score, low) for score in scores]

    def with_ties() -> list[jax.Array]:
        above = [score >= value_of(high, score.dtype) for score in scores]
        ties = [reaches(score, low) & ~over for score, over in zip(scores, above, strict=True)]
        first = _first_ties(ties, above, kept, count, starts, exact, wide_ranks)
        return [over | tie for over, tie in zip(above, first, strict=True)]

    return lax.cond(exact, without_ties, with_ties)


def reaches(score: jax.Array, key: jax.Array) -> jax.Array:
    """Return which scores have a key of at least `key`; every score, NaN too, has at least 0."""
    return (score >= value_of(key, score.dtype)) | (key == 0)


def _first_ties(
    ties: list[jax.Array],
    above: list[jax.Array],
    kept: list[jax.Array],
    count: jax.Array,
    starts: Sequence[np.ndarray],
    exact: jax.Array,
    wide_ranks: bool,
) -> list[jax.Array]:
    """Select the first ties, so that they and `above` are `count` together: by `_ranks`."""
    size = sum(math.prod(tie.shape) for tie in ties)
    with jax.enable_x64(True):
        wide = wide_ranks or 2 * size + 1 >= PAST_UINT32
        later = lax.full((), size, jnp.uint64 if wide else jnp.uint32)
        ranks = partial(_ranks, kept, starts, later)
        n_above, n_ties = count_true(list(zip(above, ties, strict=True)))
        # The ties of the highest ranks are pruned.
        excess = lax.sub(lax.add(n_above, n_ties), lax.convert_element_type(count, jnp.int64))

        def probe(pivots: jax.Array) -> tuple[jax.Array, jax.Array]:
            pairs = list(zip(ranks(pivots[0]), ties, strict=True))
            last = [tuple(tie & (r >= pivots[j]) for j in range(TIE_PIVOTS)) for r, tie in pairs]
            return compare(count_true(last), excess)

        # Under vmap both branches of `select` run: without ties, the search ends at once.
        last = jnp.where(exact, 0 * later, 2 * later + 1)
        end = narrow(0 * later, last, probe, pivots=TIE_PIVOTS).low
        return [tie & (rank < end) for tie, rank in zip(ties, ranks(end), strict=True)]


def _ranks(
    kept: list[jax.Array], starts: Sequence[np.ndarray], later: jax.Array, pivot: jax.Array
) -> list[jax.Array]:
    """Rank the entries: by flat index, plus `later` for those that were not kept so far."""
    # A 1 that XLA cannot fold: with a constant it would compute all ranks before the search and
    # hold them in memory.
    one = (pivot != 2 * later + 1).astype(later.dtype)
    return [
        flat_index(mask.shape, start, one) + jnp.where(mask, 0 * later, later * one)
        for mask, start in zip(kept, starts, strict=True)
    ]


def flat_index(shape: tuple[int, ...], start: np.ndarray, one: jax.Array) -> jax.Array:
    """Return the flat index of each entry of a leaf, in C order.

    Args:
      shape: of the leaf.
      start: the index of the first entry; an array with one number a row numbers each row of the
        leading axis from its own start.
      one: a scalar 1 of the dtype of the result.
    """
    first = jnp.asarray(start.reshape(start.shape + (1,) * (len(shape) - start.ndim)), one.dtype)
    index = jnp.broadcast_to(first, shape)
    for axis in range(start.ndim, len(shape)):
        stride = jnp.array(math.prod(shape[axis + 1 :]), one.dtype) * one
        index = index + lax.broadcasted_iota(one.dtype, shape, axis) * stride
    return index
