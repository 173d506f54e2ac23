"""Units of a leaf: equal blocks that tile it, so that the weights of one stay or go together."""

import math

import jax
import jax.numpy as jnp

from synflow_jax.trees import Pattern, Shape


def unit_shape(pattern: Pattern, path: str, shape: Shape) -> Shape:
    """Return the shape of a leaf's units, as its pattern gives it, and check that units tile it."""
    unit = pattern(path, shape)
    known = isinstance(unit, tuple) and len(unit) == len(shape)
    if not known or any(u != int(u) or not 1 <= u <= n for u, n in zip(unit, shape, strict=True)):
        raise ValueError(
            "pattern(path, shape) must return the shape of a unit, a whole number from 1 to the "
            f"length of each axis, got {unit!r} for {path!r} of shape {shape}"
        )
    return tuple(int(u) for u in unit)


def count_units(shape: Shape, unit: Shape) -> Shape:
    """Count the units along each axis; the last one of an axis may be cut short."""
    return tuple(math.ceil(n / u) for n, u in zip(shape, unit, strict=True))


def sum_units(score: jax.Array, unit: Shape) -> jax.Array:
    """Sum the scores of each unit."""
    for axis, size in enumerate(unit):
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


def spread_units(mask: jax.Array, unit: Shape, shape: Shape) -> jax.Array:
    """Expand a mask of units to a mask of weights."""
    for axis, (size, length) in enumerate(zip(unit, shape, strict=True)):
        if 1 < size < length:
            mask = jnp.repeat(mask, size, axis)
            mask = jax.lax.slice_in_dim(mask, 0, length, axis=axis)
    return jnp.broadcast_to(mask, shape)
