"""The largest prefix of the sorted scores whose sum fits a budget, without a sort.

As in `select`, a pass leaves an eighth of a bracket; here the scores below each of seven pivots are
added up. float32 sums of ten million numbers go astray, and float64 sums depend on the layout
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

from synflow_jax.scaled import power_of_two
from synflow_jax.selection._bracket import PIVOTS, narrow
from synflow_jax.selection._counting import add_up, total
from synflow_jax.selection._keys import key_of, value_of

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


def _sums_below(scores: Any, pivots: list[jax.Array], unit: Unit) -> list[jax.Array]:
    """Add up, for each pivot, the scores that are below it."""
    with jax.enable_x64(True):
        totals = [lax.full((), 0, jnp.uint64)] * len(pivots)
        for score in scores:
            units = _whole(score, unit, lax.ceil)
            none = lax.full_like(units, 0)
            parts = tuple(lax.select(score < pivot, units, none) for pivot in pivots)
            totals = list(map(lax.add, totals, add_up(parts)))
        return totals


def _largest_cut(scores: Any, limit: jax.Array, unit: Unit) -> jax.Array:
    """Find the largest score, of all there could be, such that those below it fit the limit."""
    dtype = scores[0].dtype

    def probe(pivots: jax.Array) -> tuple[jax.Array, jax.Array]:
        values = value_of(pivots, dtype)
        sums = _sums_below(scores, [values[j] for j in range(PIVOTS)], unit)
        fits = jnp.stack([lax.le(one, limit) for one in sums])
        return fits, jnp.zeros_like(fits)

    zero, infinity = key_of(jnp.zeros((), dtype)), key_of(jnp.array(jnp.inf, dtype))
    return value_of(narrow(zero, infinity, probe).low, dtype)


def prefix_size(scores: list[jax.Array], kept: list[jax.Array], budget: jax.Array) -> jax.Array:
    """Count how many of the kept scores, smallest first, add up to no more than the budget.

    Args:
      scores: arrays of one dtype, float32 or float64; what is negative counts as 0.
      kept: bool arrays of the same shapes; the others do not count.
      budget: a scalar of the same dtype, above 0.

    Returns:
      int64 scalar, equal scores counted one by one.
    """
    pairs = list(zip(scores, kept, strict=True))
    floors = [jnp.where(mask & (s > 0), s, jnp.zeros_like(s)) for s, mask in pairs]
    unit = _unit(budget, sum(math.prod(score.shape) for score in scores))
    limit = _whole(budget, unit, lax.floor)
    cut = _largest_cut(floors, limit, unit)
    zipped = list(zip(floors, kept, strict=True))
    below, ties = total([((s < cut) & mask, (s == cut) & mask) for s, mask in zipped])
    (spent,) = _sums_below(floors, [cut], unit)
    with jax.enable_x64(True):
        price = lax.max(_whole(cut, unit, lax.ceil), lax.full((), 1, jnp.uint64))
        fit = lax.div(lax.sub(limit, spent), price)
        extra = lax.min(fit, lax.convert_element_type(ties, jnp.uint64))
        return lax.convert_element_type(extra, jnp.int64) + below
