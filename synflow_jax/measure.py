"""What a round is measured by, in one pass over scores and masks."""

import math
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from synflow_jax.cut import LARGEST_INT32, total, unsigned_of


def measure(
    scores: list[jax.Array],
    before: list[jax.Array],
    after: list[jax.Array],
    nested: bool = False,
) -> tuple[list[jax.Array], jax.Array, list[jax.Array]]:
    """Measure what a round kept and what it cost.

    Args:
      scores: arrays of one floating dtype; the leading axis is that of layers.
      before: the masks that were scored.
      after: the masks that were chosen.
      nested: what had gone before has no score, whatever stands in its place.

    Returns:
      Kept weights of each layer, in arrays of int32, or int64 where a layer has more than int32 can
      count; the sum, taken in float64, of the scores of what went, a scalar of their dtype; and the
      largest |score| of each layer, NaN where one is no number, in arrays.
    """
    with jax.enable_x64(True):
        triples = zip(scores, before, after, strict=True)
        kept, lost, top = zip(*(_measure_leaf(*triple, nested) for triple in triples), strict=True)
        costs = [jnp.sum(part) for part in lost]
        cost = reduce(lax.add, costs)
        most = max(kept, key=lambda count: count.dtype.itemsize).dtype
        kept = [lax.convert_element_type(count, most) for count in kept]
        return kept, lax.convert_element_type(cost, scores[0].dtype), list(top)


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


def _measure_leaf(
    score: jax.Array, before: jax.Array, after: jax.Array, nested: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
    # The bits of |score| order as it does, NaN last; and XLA wants the floats of one pass alike.
    none = jnp.zeros_like(score)
    lost = jnp.where(before & ~after, score, none)
    known = jnp.where(before, score, none) if nested else score
    dtype = count_dtype(math.prod(score.shape[1:]))
    parts = (
        lax.convert_element_type(lost, jnp.float64),
        lax.convert_element_type(after, dtype),
        lax.bitcast_convert_type(jnp.abs(known), unsigned_of(score.dtype)),
    )
    zeros = tuple(lax.full((), 0, part.dtype) for part in parts)
    cost, kept, bits = lax.reduce(parts, zeros, _join, tuple(range(1, score.ndim)))
    return kept, cost, lax.bitcast_convert_type(bits, score.dtype)


def _join(a: tuple[jax.Array, ...], b: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    return lax.add(a[0], b[0]), lax.add(a[1], b[1]), lax.max(a[2], b[2])
