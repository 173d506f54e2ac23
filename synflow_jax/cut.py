"""The cut between kept and pruned scores, found by counting.

Floats and the whole numbers of their bits order alike. A bracket of such numbers, the keys, holds
the cut; each pass counts how many scores reach each of seven pivots and leaves an eighth of it,
until a pivot is reached by exactly as many as shall stay. Only counts leave a leaf, so that leaves
are never concatenated and the layout across devices does not matter.
"""

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

PIVOTS = 7
OFFSETS = (-0.5, -0.125, -0.0625, 0.0, 0.0625, 0.125, 0.5)  # octaves
LARGEST_INT32 = 2**31 - 1

Probe = Callable[[jax.Array], tuple[jax.Array, jax.Array]]


def unsigned_of(dtype: Any) -> Any:
    """Name the whole numbers as wide as a floating dtype."""
    return jnp.dtype(f"uint{jnp.finfo(dtype).bits}")


def octave_of(dtype: Any) -> float:
    """Say how many keys lie between one power of two and the next."""
    return 2.0 ** jnp.finfo(dtype).nmant


def key_of(score: jax.Array) -> jax.Array:
    """Map floats to unsigned integers of the same order; NaN comes last, −0 is 0."""
    unsigned = unsigned_of(score.dtype)
    top = jnp.array(1, unsigned) << (jnp.iinfo(unsigned).bits - 1)
    bits = lax.bitcast_convert_type(jnp.where(score == 0, jnp.zeros_like(score), score), unsigned)
    key = jnp.where(bits >= top, ~bits, bits | top)
    return jnp.where(jnp.isnan(score), jnp.zeros_like(key), key)


def value_of(key: jax.Array, dtype: Any) -> jax.Array:
    """Invert `key_of`: −∞ for the keys below it, NaN, which nothing reaches, above that of ∞."""
    top = jnp.array(1, key.dtype) << (jnp.iinfo(key.dtype).bits - 1)
    least = key_of(jnp.array(-jnp.inf, dtype))
    high = jnp.maximum(key, least)
    return lax.bitcast_convert_type(jnp.where(high >= top, high ^ top, ~high), dtype)


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


def total(counts: Sequence[tuple[jax.Array, ...]]) -> list[jax.Array]:
    """Count the True entries of all leaves, int64 scalars: one for each of the arrays of a leaf.

    The arrays of one leaf are counted in one pass, and are read nowhere else.
    """
    # One reduction of several operands runs on all cores and several entries at a time; several
    # reductions side by side, and one of a single operand, do not.
    with jax.enable_x64(True):
        sums = [_leaf_counts(parts) for parts in counts]
        return [reduce(lax.add, column) for column in zip(*sums, strict=True)]


def first_int32_axis(shape: tuple[int, ...]) -> int:
    """Find the axis from which on int32 can count the entries; the number of axes if none is."""
    sizes = [math.prod(shape[axis:]) for axis in range(len(shape))]
    return next((axis for axis, size in enumerate(sizes) if size <= LARGEST_INT32), len(shape))


def add_up(parts: tuple[jax.Array, ...], axis: int = 0) -> list[jax.Array]:
    """Add up arrays of one shape and dtype over the axes from `axis` on, in one pass."""
    zeros = (lax.full((), 0, parts[0].dtype),) * len(parts)
    axes = tuple(range(axis, parts[0].ndim))
    return list(lax.reduce(parts, zeros, lambda a, b: tuple(map(lax.add, a, b)), axes))


def _leaf_counts(parts: tuple[jax.Array, ...]) -> list[jax.Array]:
    shape = parts[0].shape
    parts = parts * 2 if len(parts) == 1 else parts
    # int32 holds the count of a leaf, or at least that of each of its rows.
    axis = first_int32_axis(shape)
    short = axis < len(shape)
    dtype = jnp.int32 if short else jnp.int64
    ones = tuple(lax.convert_element_type(part, dtype) for part in parts)
    found = add_up(ones, axis if short else 0)
    wide = [lax.convert_element_type(count, jnp.int64) for count in found]
    return [jnp.sum(count) if count.ndim else count for count in wide]


def compare(counts: list[jax.Array], wanted: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Tell which counts are at least as large as wanted, and which are equal to it."""
    with jax.enable_x64(True):
        wide = lax.convert_element_type(wanted, jnp.int64)
        pairs = [(lax.ge(count, wide), lax.eq(count, wide)) for count in counts]
    return jnp.stack([ge for ge, _ in pairs]), jnp.stack([eq for _, eq in pairs])


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
