"""Exact selection without a sort: the k-th largest score is found by counting.

Floats are mapped to whole numbers that order alike; three bits of the k-th largest are settled a
pass, by counting how many keys reach each of seven pivots. Only counts leave a leaf, so leaves are
never concatenated, and the layout across devices does not matter. Ties are broken by what was
kept so far, then by flat index (leaves in tree order, C order).
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

BITS_A_PASS = 3
PIVOTS = 2**BITS_A_PASS - 1


def order_key(score: jax.Array) -> jax.Array:
    """Map float32 or float64 to unsigned integers of the same order; NaN comes last, −0 is 0."""
    unsigned = jnp.uint64 if score.dtype == jnp.float64 else jnp.uint32
    top = jnp.array(1, unsigned) << (jnp.iinfo(unsigned).bits - 1)
    bits = lax.bitcast_convert_type(jnp.where(score == 0, jnp.zeros_like(score), score), unsigned)
    key = jnp.where(bits >= top, ~bits, bits | top)
    return jnp.where(jnp.isnan(score), jnp.zeros_like(key), key)


def count_reaching(key: jax.Array, pivots: jax.Array) -> jax.Array:
    """Count, for each of the seven pivots, the keys that are at least as large: one pass."""
    # One reduction of seven operands runs on all cores; seven sums side by side do not.
    reached = tuple((key >= pivots[j]).astype(jnp.int32) for j in range(PIVOTS))
    zeros = (jnp.int32(0),) * PIVOTS
    axes = tuple(range(key.ndim))
    totals = lax.reduce(reached, zeros, lambda a, b: tuple(map(jnp.add, a, b)), axes)
    return jnp.stack(totals)


def largest_key(unsigned: Any, fit: Callable[[jax.Array], jax.Array], needed: Any = True) -> Any:
    """Find the largest key that fits, where all below it do, by fit(seven pivots) -> seven bools.

    Three bits a pass, the highest first; 0 where it is not needed.
    """
    passes = math.ceil(jnp.iinfo(unsigned).bits / BITS_A_PASS)
    digits = jnp.arange(1, PIVOTS + 1, dtype=unsigned)

    def settle_bits(i: jax.Array, found: jax.Array) -> jax.Array:
        shift = (BITS_A_PASS * (passes - 1 - i)).astype(unsigned)
        steps = digits << shift
        fits = fit(found | steps) & (steps >> shift == digits)  # the first digit has fewer bits
        return found | (jnp.sum(fits).astype(unsigned) << shift)

    turns = jnp.where(needed, jnp.int32(passes), jnp.int32(0))
    return lax.fori_loop(jnp.int32(0), turns, settle_bits, jnp.array(0, unsigned))


def kth_largest(keys: list[jax.Array], count: jax.Array, needed: Any = True) -> jax.Array:
    """Find the largest key that at least `count` keys reach (0 where it is not needed)."""

    def reached(pivots: jax.Array) -> jax.Array:
        return sum(count_reaching(key, pivots) for key in keys) >= count

    return largest_key(keys[0].dtype, reached, needed)


def flat_index(shape: tuple[int, ...], offset: int) -> jax.Array:
    """Number the entries of a leaf in C order, from `offset`, wherever they are stored."""
    index = jnp.full(shape, offset, jnp.uint32)
    for axis in range(len(shape)):
        stride = math.prod(shape[axis + 1 :])
        index = index + lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride)
    return index


def select(scores: list[jax.Array], kept: list[jax.Array], count: jax.Array) -> list[jax.Array]:
    """Keep the `count` largest of all scores together; ties go to `kept`, then by flat index.

    Args:
      scores: arrays of one dtype, float32 or float64, signed or not.
      kept: bool arrays of the same shapes, the masks so far.
      count: how many to keep, int32 scalar, from 0 to the number of scores.

    Returns:
      Bool arrays with exactly `count` entries True.
    """
    keys = [order_key(score) for score in scores]
    cut = kth_largest(keys, count)
    above = sum(jnp.sum(key > cut, dtype=jnp.int32) for key in keys)
    tied = [(key == cut) & (count > 0) for key in keys]
    ties = sum((jnp.sum(tie, dtype=jnp.int32) for tie in tied), start=jnp.int32(0))
    chosen = _first_ties(tied, kept, count - above, ties)
    pairs = zip(keys, chosen, strict=True)
    return [((key > cut) & (count > 0)) | tie for key, tie in pairs]


def _first_ties(
    tied: list[jax.Array], kept: list[jax.Array], wanted: jax.Array, ties: jax.Array
) -> list[jax.Array]:
    """Choose `wanted` of the tied entries: those kept so far first, then by flat index."""
    total = sum(math.prod(tie.shape) for tie in tied)
    ranks, offset = [], 0
    for tie, mask in zip(tied, kept, strict=True):
        last = jnp.where(mask, jnp.uint32(0), jnp.uint32(total))
        rank = flat_index(tie.shape, offset) + last
        ranks.append(jnp.where(tie, ~(rank + jnp.uint32(1)), jnp.uint32(0)))
        offset += math.prod(tie.shape)
    cut = kth_largest(ranks, wanted, needed=wanted < ties)
    return [tie & (rank >= cut) for tie, rank in zip(tied, ranks, strict=True)]
