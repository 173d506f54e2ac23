"""Counts of True entries: exact at any size, with one pass over each leaf."""

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

LARGEST_INT32 = 2**31 - 1


def count_true(flags: Sequence[tuple[jax.Array, ...]]) -> list[jax.Array]:
    """Count the True entries of several bool trees at once.

    Args:
      flags: for each leaf, a tuple with that leaf of every tree; they are counted in one pass.

    Returns:
      One int64 scalar a tree.
    """
    # One reduction of several operands runs on all cores and several entries at a time; several
    # reductions side by side, and one of a single operand, do not.
    with jax.enable_x64(True):
        sums = [_leaf_counts(parts) for parts in flags]
        return [reduce(lax.add, column) for column in zip(*sums, strict=True)]


@jax.jit
def count_kept(masks: list[jax.Array]) -> jax.Array:
    """Count the kept weights of each leaf: int32[L], or int64[L] if a leaf has too many entries."""
    with jax.enable_x64(True):
        counts = jnp.stack([count_true([(mask,)])[0] for mask in masks])
        most = max(mask.size for mask in masks)
        return lax.convert_element_type(counts, count_dtype(most))


def sum_counts(counts: jax.Array) -> int:
    """Sum the counts of layers on the host, where int32 cannot overflow."""
    return int(np.asarray(counts, np.int64).sum())


def compare(counts: list[jax.Array], wanted: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return which counts are at least `wanted`, and which are equal to it."""
    with jax.enable_x64(True):
        wide = lax.convert_element_type(wanted, jnp.int64)
        pairs = [(lax.ge(count, wide), lax.eq(count, wide)) for count in counts]
    return jnp.stack([ge for ge, _ in pairs]), jnp.stack([eq for _, eq in pairs])


def count_dtype(most: int) -> Any:
    """Return int32 if it can hold the count `most`, otherwise int64."""
    return jnp.int32 if most <= LARGEST_INT32 else jnp.int64


def add_up(parts: tuple[jax.Array, ...], axis: int = 0) -> list[jax.Array]:
    """Sum each of several arrays of one shape over its axes from `axis` on, in one pass."""
    zeros = (lax.full((), 0, parts[0].dtype),) * len(parts)
    axes = tuple(range(axis, parts[0].ndim))
    return list(lax.reduce(parts, zeros, lambda a, b: tuple(map(lax.add, a, b)), axes))


def first_int32_axis(shape: tuple[int, ...]) -> int:
    """Return the first axis for which int32 can count shape[axis:]; len(shape) if there is none."""
    sizes = [math.prod(shape[axis:]) for axis in range(len(shape))]
    return next((axis for axis, size in enumerate(sizes) if size <= LARGEST_INT32), len(shape))


def _leaf_counts(parts: tuple[jax.Array, ...]) -> list[jax.Array]:
    """Count the True entries of each of several bool arrays of one shape, as int64 scalars."""
    shape = parts[0].shape
    parts = parts * 2 if len(parts) == 1 else parts
    # int32 suffices for the count of a leaf, or else of each of its rows, which are then added up.
    axis = first_int32_axis(shape)
    short = axis < len(shape)
    dtype = jnp.int32 if short else jnp.int64
    ones = tuple(lax.convert_element_type(part, dtype) for part in parts)
    found = add_up(ones, axis if short else 0)
    wide = [lax.convert_element_type(count, jnp.int64) for count in found]
    return [jnp.sum(count) if count.ndim else count for count in wide]
