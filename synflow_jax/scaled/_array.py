"""Numbers as mantissa × 2^exponent: one floating array and one whole exponent for all of it.

Powers of two are exact, so that moving them between the two parts rounds nothing. Exponents come
from the bits of the largest entry, with the gradient stopped: they carry none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

DEAD = -(2**24)  # the exponent of an array that is all zero: below any that is not
SLACK = 30  # bits by which a source may be above 1 in the units of the signal that it joins


class Scaled(NamedTuple):
    """mantissa × 2^exponent."""

    mantissa: jax.Array  # floating, any shape
    exponent: jax.Array  # int32 scalar


@dataclass(frozen=True)
class Value:
    """What the interpreter knows of an intermediate array.

    Attributes:
      array: the mantissa; the array itself where the exponent is the number 0.
      exponent: 0, or an int32 scalar; two values that share one object need no alignment.
      bits: how far, in powers of two, the largest entry may be from 1, by the sizes of the sums
        since it was last brought there.
      neutral: only zeros and infinities, which are the same at every exponent.
      source: plain, and known to the `floor` under which signals are rescaled.
      floored: where a source is alive, the exponent is no less than −SLACK.
    """

    array: Any
    exponent: Any = 0
    bits: float = 0.0
    neutral: bool = False
    source: bool = False
    floored: bool = False

    @property
    def plain(self) -> bool:
        """Whether the array is the value."""
        return isinstance(self.exponent, int)


def is_float(array: Any) -> bool:
    """Whether an array holds real floating-point numbers."""
    dtype = array.dtype if hasattr(array, "dtype") else jnp.result_type(array)
    return jnp.issubdtype(dtype, jnp.floating)


def limit(dtype: Any) -> float:
    """The bits at which an array is rescaled: half of the exponents that its dtype has."""
    return (jnp.finfo(dtype).maxexp - 2) / 2


def _bits_of(dtype: Any) -> tuple[Any, Any, int, int]:
    wide = dtype if jnp.finfo(dtype).bits >= 32 else jnp.dtype(jnp.float32)
    whole = jnp.int64 if jnp.finfo(wide).bits == 64 else jnp.int32
    return wide, whole, jnp.finfo(wide).nmant, jnp.finfo(wide).maxexp - 1


def power_of_two(exponent: jax.Array, dtype: Any) -> jax.Array:
    """Make 2^exponent exactly: 0 below the normal numbers, the largest power above them."""
    wide, whole, width, bias = _bits_of(dtype)
    biased = jnp.clip(exponent, -bias, jnp.finfo(dtype).maxexp - 1) + bias
    bits = lax.shift_left(biased.astype(whole), whole(width))
    # The remainder changes nothing. XLA copies cheap scalar arithmetic into each of its uses, chain
    # and all, and takes a remainder for expensive: it is computed once.
    return lax.bitcast_convert_type(lax.rem(bits, whole(jnp.iinfo(whole).max)), wide).astype(dtype)


def exponent_of(array: jax.Array) -> jax.Array:
    """Find ⌊log2 max|array|⌋, DEAD where all is zero and 0 where it is not finite."""
    wide, whole, width, bias = _bits_of(array.dtype)
    top = jnp.max(jnp.abs(lax.stop_gradient(array)), initial=0).astype(wide)
    biased = lax.shift_right_logical(lax.bitcast_convert_type(top, whole), whole(width))
    exponent = biased.astype(jnp.int32) - jnp.int32(bias)
    exponent = jnp.where(exponent > bias, jnp.int32(0), exponent)
    return jnp.where(top > 0, exponent, jnp.int32(DEAD))


def shift(array: jax.Array, exponent: jax.Array) -> jax.Array:
    """Multiply by 2^exponent."""
    return array * power_of_two(exponent, array.dtype)


def rescale(value: Value, floor: Any = None) -> Value:
    """Bring the largest entry to [1, 2), or as near as the floor of the exponent lets it."""
    top = exponent_of(value.array)
    # Subnormal powers of two would be flushed to 0: stay one inside the range.
    most = jnp.finfo(value.array.dtype).maxexp - 2
    exponent = jnp.where(top == DEAD, jnp.int32(DEAD), value.exponent + jnp.clip(top, -most, most))
    if floor is not None:
        exponent = jnp.maximum(exponent, floor)
    exponent = lax.rem(exponent, jnp.int32(2**30))  # as in power_of_two: computed once
    return Value(
        shift(value.array, value.exponent - exponent), exponent, 1.0, floored=floor is not None
    )


def floor_of(sources: Sequence[jax.Array]) -> jax.Array:
    """Find the least exponent of a signal: −SLACK where a source that will join it is not 0."""
    # One number of each source: of an array that is sharded, only numbers cross devices.
    tops = [jnp.max(jnp.abs(lax.stop_gradient(source)), initial=0) for source in sources]
    wide = max((top.dtype for top in tops), key=lambda d: jnp.finfo(d).bits, default=float)
    alive = jnp.any(jnp.stack([jnp.zeros((), wide), *(top.astype(wide) for top in tops)]) != 0)
    return jnp.where(alive, jnp.int32(-SLACK), jnp.int32(DEAD))


def true_value(value: Value) -> jax.Array:
    """Give the array itself: infinite or 0 where the dtype cannot hold it."""
    if value.plain or value.neutral:
        return value.array
    return unscale(value.array, value.exponent)


def unscale(mantissa: jax.Array, exponent: jax.Array) -> jax.Array:
    """Multiply out mantissa × 2^exponent: infinite or 0 where the dtype cannot hold it."""
    # Two steps: a mantissa far from 1 may bring back what one power of two could not.
    most = jnp.finfo(mantissa.dtype).maxexp - 2
    first = jnp.clip(exponent, -most, most)
    return shift(shift(mantissa, first), exponent - first)


def log2(number: Scaled) -> jax.Array:
    """Take the logarithm of mantissa × 2^exponent: −inf at 0, NaN below."""
    return jnp.log2(number.mantissa) + number.exponent.astype(number.mantissa.dtype)


def unit_exponent(number: Scaled) -> jax.Array:
    """Give the exponent where the value is far from the ends of its dtype, else 0."""
    top = number.exponent + exponent_of(number.mantissa)
    fits = jnp.abs(top) <= jnp.finfo(number.mantissa.dtype).maxexp - 28
    return jnp.where(fits, number.exponent, jnp.int32(0))


def align(
    values: Sequence[Value], floor: Any = None, adding: bool = False
) -> tuple[list[jax.Array], Value]:
    """Bring values to one exponent: their arrays, and what their sum would be like."""
    bits = max(value.bits for value in values)
    ranked = [v for v in values if not v.neutral]
    moving = {id(v.exponent): v for v in ranked if not v.plain}
    if not moving:
        return [v.array for v in values], Value(None, 0, bits, not ranked)
    first = next(iter(moving.values()))
    plain = [v for v in ranked if v.plain]
    covered = adding and first.floored and all(v.source for v in plain)
    if len(moving) == 1 and (covered or not plain):
        # A signal that died since it was rescaled still sets the exponent: what sources add to it
        # counts only if it is not 2^126 below the last that lived.
        joint = Value(None, first.exponent, bits, floored=first.floored)
    else:
        tops = [exponent_of(v.array) + v.exponent for v in ranked]
        tops += [] if floor is None else [floor]
        highest = jnp.maximum(jnp.stack(tops).max(), jnp.int32(DEAD))
        joint = Value(None, highest, 1.0, floored=floor is not None)
    return [_move(v, joint.exponent) for v in values], joint


def align_low(values: Sequence[Value]) -> tuple[list[jax.Array], Value]:
    """Bring a signal and plain values to the lower exponent: what is above may become infinite."""
    bits = max(value.bits for value in values)
    exponents = [v.exponent for v in values if not v.plain and not v.neutral]
    low = jnp.minimum(jnp.stack(exponents).min(), jnp.int32(0))
    return [_move(v, low) for v in values], Value(None, low, bits)


def _move(value: Value, exponent: jax.Array) -> jax.Array:
    if value.neutral or value.exponent is exponent:
        return value.array
    return shift(value.array, value.exponent - exponent)
