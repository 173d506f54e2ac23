"""Units that tile a leaf: how many there are, their scores, and their masks spread on weights."""

import math

import jax
import jax.numpy as jnp

from synflow_jax._types import Pattern

Shape = tuple[int, ...]


def unit_shape(pattern: Pattern, path: str, shape: Shape) -> Shape:
    """Ask a pattern for the shape of a leaf's units, and refuse what tiles no leaf."""
    block = pattern(path, shape)
    known = isinstance(block, tuple) and len(block) == len(shape)
    if not known or any(b != int(b) or not 1 <= b <= n for b, n in zip(block, shape, strict=True)):
        raise ValueError(
            "pattern(path, shape) must return the shape of a unit, a whole number from 1 to the "
            f"length of each axis, got {block!r} for {path!r} of shape {shape}"
        )
    return tuple(int(b) for b in block)


def count_units(shape: Shape, block: Shape) -> Shape:
    """Count the units along each axis."""
    return tuple(math.ceil(n / b) for n, b in zip(shape, block, strict=True))


def sum_units(score: jax.Array, block: Shape) -> jax.Array:
    """Add up the scores of each unit."""
    for axis, size in enumerate(block):
        if size == 1:
            continue
        length = score.shape[axis]
        if size == length:
            score = jnp.sum(score, axis, keepdims=True)
            continue
        ends = [(0, -length % size if k == axis else 0) for k in range(score.ndim)]
        parts = (*score.shape[:axis], -(-length // size), size, *score.shape[axis + 1 :])
        score = jnp.sum(jnp.pad(score, ends).reshape(parts), axis + 1)
    return score


def spread_units(mask: jax.Array, block: Shape, shape: Shape) -> jax.Array:
    """Give every weight the mask of its unit."""
    for axis, (size, length) in enumerate(zip(block, shape, strict=True)):
        if 1 < size < length:
            mask = jnp.repeat(mask, size, axis)
            mask = jax.lax.slice_in_dim(mask, 0, length, axis=axis)
    return jnp.broadcast_to(mask, shape)
