"""The cut between kept and pruned scores, found by counting.

Floats and the whole numbers of their bits order alike. A bracket of such numbers, the keys, holds
the cut; each pass counts how many scores reach each of seven pivots and leaves an eighth of it,
until a pivot is reached by exactly as many as shall stay. Only counts leave a leaf, so that leaves
are never concatenated and the layout across devices does not matter.
"""

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

LARGEST_INT32 = 2**31 - 1


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


@jax.jit
def count_kept(masks: list[jax.Array]) -> jax.Array:
    """Count the kept weights of each leaf: int32[L], or int64[L] where int32 is too short."""
    with jax.enable_x64(True):
        counts = jnp.stack([total([(mask,)])[0] for mask in masks])
        most = max(mask.size for mask in masks)
        return lax.convert_element_type(counts, count_dtype(most))


def in_all(counts: jax.Array) -> int:
    """Add up the counts of layers, which together may be more than int32 holds."""
    return int(np.asarray(counts, np.int64).sum())


def count_dtype(most: int) -> Any:
    """Name whole numbers that can count so many."""
    return jnp.int32 if most <= LARGEST_INT32 else jnp.int64
