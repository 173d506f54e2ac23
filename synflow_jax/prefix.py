"""The largest prefix of the sorted scores whose sum fits a budget, without a sort.

As in `select`, three bits of the cut are settled a pass; here the scores below each of seven pivots
are added up. float32 sums of ten million numbers go astray, and float64 sums depend on the layout
across devices: scores become whole numbers of 64 bits, rounded up, so that a sum is exact whatever
its order and never claims to fit where it does not. What is rounded up is below 2^-61·N² of the
budget, 1e-4 for ten million weights and nothing at all for a few thousand float32 scores.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from synflow_jax.scaled.array import power_of_two
from synflow_jax.select import PIVOTS, largest_key, order_key

# Beyond, 2^-exponent would leave float64's range; a score that small counts as one unit.
FARTHEST = 900


class Unit(NamedTuple):
    """What one counts in 64 bits: 2^(exponent − bits)."""

    exponent: jax.Array  # int32, of the budget
    bits: int  # so many that the sum of all scores, each at most twice the budget, has 64


def _unit(budget: jax.Array, size: int) -> Unit:
    exponent = jnp.clip(jnp.frexp(budget)[1], -FARTHEST, FARTHEST)
    return Unit(exponent, 62 - max(size, 1).bit_length())


def _whole(value: jax.Array, unit: Unit, rounding: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """Count a value in units, uint64; what is more than twice the budget counts as twice."""
    with jax.enable_x64(True):
        wide = lax.convert_element_type(value, jnp.float64)
        units = rounding(wide * power_of_two(unit.bits - unit.exponent, jnp.float64))
        most = lax.full_like(units, 2.0 ** (unit.bits + 1))
        return lax.convert_element_type(lax.min(units, most), jnp.uint64)


def _sum(parts: tuple[jax.Array, ...]) -> list[jax.Array]:
    """Add up arrays of one shape, in one reduction: a list of scalars of their dtype."""
    with jax.enable_x64(True):
        zeros = tuple(lax.full((), 0, part.dtype) for part in parts)
        axes = tuple(range(parts[0].ndim))
        return list(lax.reduce(parts, zeros, lambda a, b: tuple(map(lax.add, a, b)), axes))


def wide_sum(leaves: list[jax.Array]) -> jax.Array:
    """Add up all numbers of all leaves in float64, and return the sum in their own dtype."""
    with jax.enable_x64(True):
        totals = [_sum((lax.convert_element_type(leaf, jnp.float64),))[0] for leaf in leaves]
        return lax.convert_element_type(sum(totals[1:], start=totals[0]), leaves[0].dtype)


def _sums_below(scores: Any, keys: Any, pivots: list[jax.Array], unit: Unit) -> list[jax.Array]:
    """Add up, for each pivot, the scores whose key is below it."""
    with jax.enable_x64(True):
        totals = [lax.full((), 0, jnp.uint64)] * len(pivots)
        for score, key in zip(scores, keys, strict=True):
            units = _whole(score, unit, lax.ceil)
            parts = tuple(
                lax.select(key < pivot, units, lax.full_like(units, 0)) for pivot in pivots
            )
            totals = list(map(lax.add, totals, _sum(parts)))
        return totals


def _largest_cut(scores: Any, keys: Any, limit: jax.Array, unit: Unit) -> jax.Array:
    """Find the largest key such that all scores below it fit the limit."""

    def fit(pivots: jax.Array) -> jax.Array:
        sums = _sums_below(scores, keys, [pivots[j] for j in range(PIVOTS)], unit)
        return jnp.stack([lax.le(total, limit) for total in sums])

    return largest_key(keys[0].dtype, fit)


def _count(hits: list[jax.Array]) -> jax.Array:
    return sum((jnp.sum(hit, dtype=jnp.int32) for hit in hits), start=jnp.int32(0))


def prefix_size(scores: list[jax.Array], kept: list[jax.Array], budget: jax.Array) -> jax.Array:
    """Count how many of the kept scores, smallest first, add up to no more than the budget.

    Args:
      scores: arrays of one dtype, float32 or float64; what is negative counts as 0.
      kept: bool arrays of the same shapes; the others do not count.
      budget: a scalar of the same dtype, above 0.

    Returns:
      int32 scalar, equal scores counted one by one.
    """
    pairs = list(zip(scores, kept, strict=True))
    floors = [jnp.where(mask & (s > 0), s, jnp.zeros_like(s)) for s, mask in pairs]
    keys = [order_key(score) for score in floors]
    unit = _unit(budget, sum(math.prod(score.shape) for score in scores))
    limit = _whole(budget, unit, lax.floor)
    cut = _largest_cut(floors, keys, limit, unit)
    below = _count([(key < cut) & mask for key, mask in zip(keys, kept, strict=True)])
    ties = _count([(key == cut) & mask for key, mask in zip(keys, kept, strict=True)])
    # The key of a score ≥ 0 is its bits with the top one set.
    top = jnp.array(1, cut.dtype) << (jnp.iinfo(cut.dtype).bits - 1)
    tied = lax.bitcast_convert_type(cut ^ top, scores[0].dtype)
    (spent,) = _sums_below(floors, keys, [cut], unit)
    with jax.enable_x64(True):
        price = lax.max(_whole(tied, unit, lax.ceil), lax.full((), 1, jnp.uint64))
        fit = lax.div(lax.sub(limit, spent), price)
        extra = lax.min(fit, lax.convert_element_type(ties, jnp.uint64))
        return lax.convert_element_type(extra, jnp.int32) + below
