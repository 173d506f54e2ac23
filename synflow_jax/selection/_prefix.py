"""The largest number of smallest scores whose sum fits a budget, found without a sort.

As in `cut_scores`, each pass shrinks a bracket to an eighth, here by the sums of the scores below
seven pivots. float32 sums of ten million numbers lose their digits, and float64 sums depend on the
layout across devices. Scores therefore become 64-bit whole numbers, rounded up: their sums are
exact in any order, and never fit where the true sum does not. For N scores, rounding adds less than
2^-61·N² of the budget: 1e-4 for ten million, nothing for a few thousand float32 scores.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from synflow_jax.scaled import power_of_two
from synflow_jax.selection._bracket import PIVOTS, narrow
from synflow_jax.selection._counting import add_up, count_true
from synflow_jax.selection._keys import key_of, value_of

# Limits the exponent so that 2^-exponent stays in float64's range; smaller scores count as one
# unit.
FARTHEST = 900


class Unit(NamedTuple):
    """The unit of the 64-bit whole numbers, 2^(exponent − bits).

    Attributes:
      exponent: of the budget, int32.
      bits: so many that the sum of all scores, each at most twice the budget, fits in 64 bits.
    """

    exponent: jax.Array
    bits: int


def prefix_size(scores: list[jax.Array], kept: list[jax.Array], budget: jax.Array) -> jax.Array:
    """Count how many of the kept scores, smallest first, sum to at most the budget.

    Args:
      scores: arrays of one dtype, float32 or float64; negative scores count as 0.
      kept: bool arrays of the same shapes; scores where it is False are left out.
      budget: a scalar of the same dtype, above 0.

    Returns:
      int64 scalar. Of equal scores at the end of the prefix, as many as fit are counted.
    """
    pairs = list(zip(scores, kept, strict=True))
    floors = [jnp.where(mask & (s > 0), s, jnp.zeros_like(s)) for s, mask in pairs]
    unit = _unit_of(budget, sum(math.prod(score.shape) for score in scores))
    limit = _in_units(budget, unit, lax.floor)
    cut = _largest_cut(floors, limit, unit)
    zipped = list(zip(floors, kept, strict=True))
    below, ties = count_true([((s < cut) & mask, (s == cut) & mask) for s, mask in zipped])
    (spent,) = _sums_below(floors, [cut], unit)
    with jax.enable_x64(True):
        price = lax.max(_in_units(cut, unit, lax.ceil), lax.full((), 1, jnp.uint64))
        fit = lax.div(lax.sub(limit, spent), price)
        extra = lax.min(fit, lax.convert_element_type(ties, jnp.uint64))
        return lax.convert_element_type(extra, jnp.int64) + below


def _largest_cut(scores: Any, limit: jax.Array, unit: Unit) -> jax.Array:
    """Find the largest float such that the scores below it sum to at most the limit."""
    dtype = scores[0].dtype

    def probe(pivots: jax.Array) -> tuple[jax.Array, jax.Array]:
        values = value_of(pivots, dtype)
        sums = _sums_below(scores, [values[j] for j in range(PIVOTS)], unit)
        fits = jnp.stack([lax.le(one, limit) for one in sums])
        return fits, jnp.zeros_like(fits)

    zero, infinity = key_of(jnp.zeros((), dtype)), key_of(jnp.array(jnp.inf, dtype))
    return value_of(narrow(zero, infinity, probe).low, dtype)


def _sums_below(scores: Any, pivots: list[jax.Array], unit: Unit) -> list[jax.Array]:
    """Sum, for each pivot, the scores below it, in units."""
    with jax.enable_x64(True):
        totals = [lax.full((), 0, jnp.uint64)] * len(pivots)
        for score in scores:
            units = _in_units(score, unit, lax.ceil)
            none = lax.full_like(units, 0)
            parts = tuple(lax.select(score < pivot, units, none) for pivot in pivots)
            totals = list(map(lax.add, totals, add_up(parts)))
        return totals


def _unit_of(budget: jax.Array, size: int) -> Unit:
    """Choose the unit for a budget and a number of scores."""
    exponent = jnp.clip(jnp.frexp(budget)[1], -FARTHEST, FARTHEST)
    return Unit(exponent, 62 - max(size, 1).bit_length())


def _in_units(
    value: jax.Array, unit: Unit, rounding: Callable[[jax.Array], jax.Array]
) -> jax.Array:
    """Express a value in units, uint64; values above twice the budget are cut to it."""
    with jax.enable_x64(True):
        wide = lax.convert_element_type(value, jnp.float64)
        units = rounding(wide * power_of_two(unit.bits - unit.exponent, jnp.float64))
        most = lax.full_like(units, 2.0 ** (unit.bits + 1))
        return lax.convert_element_type(lax.min(units, most), jnp.uint64)
