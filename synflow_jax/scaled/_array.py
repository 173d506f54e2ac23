"""Arrays as mantissa × 2^exponent: a floating array and one integer exponent for all its entries.

Multiplying by a power of two is exact, so that rescaling rounds nothing. Exponents are read from
the bits of the largest entry with the gradient stopped: they carry no gradient.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

DEAD = -(2**24)  # the exponent of an array of zeros, below that of any other array
SLACK = 30  # with a source that is not 0, exponents of signals are at least −SLACK


class Scaled(NamedTuple):
    """The value mantissa × 2^exponent."""

    mantissa: jax.Array  # floating, any shape
    exponent: jax.Array  # int32 scalar


@dataclass(frozen=True)
class Value:
    """An intermediate array of the interpreter.

    Attributes:
      array: the mantissa; if the exponent is the Python number 0, the value itself.
      exponent: 0, or an int32 scalar; values that share one such object need no alignment.
      bits: a bound on |log2| of the largest entry, estimated from the sizes of the sums since the
        last rescaling.
      neutral: whether all entries are 0 or infinite, and so the same at every exponent.
      source: whether it is a plain array that meets a signal, and was counted in `floor_of`.
      floored: whether the exponent respects `floor_of`.
    """

    array: Any
    exponent: Any = 0
    bits: float = 0.0
    neutral: bool = False
    source: bool = False
    floored: bool = False

    @property
    def plain(self) -> bool:
        """Whether the array is the value itself, without an exponent."""
        return isinstance(self.exponent, int)


def is_float(array: Any) -> bool:
    """Whether an array, or a Python number, has a floating or complex dtype."""
    dtype = array.dtype if hasattr(array, "dtype") else jnp.result_type(array)
    return jnp.issubdtype(dtype, jnp.inexact)


def max_bits(dtype: Any) -> float:
    """Return the bits above which an array is rescaled: half of the exponent range of its dtype."""
    return (jnp.finfo(dtype).maxexp - 2) / 2


def _format_of(dtype: Any) -> tuple[Any, Any, int, int]:
    """Return (real dtype of at least 32 bits, integer of its width, mantissa bits, bias)."""
    wide = jnp.finfo(dtype).dtype if jnp.finfo(dtype).bits >= 32 else jnp.dtype(jnp.float32)
    integer = jnp.int64 if jnp.finfo(wide).bits == 64 else jnp.int32
    return wide, integer, jnp.finfo(wide).nmant, jnp.finfo(wide).maxexp - 1


def power_of_two(exponent: jax.Array, dtype: Any) -> jax.Array:
    """Return 2^exponent exactly: 0 below the normal numbers, the largest power above them."""
    wide, integer, width, bias = _format_of(dtype)
    biased = jnp.clip(exponent, -bias, jnp.finfo(dtype).maxexp - 1) + bias
    bits = lax.shift_left(biased.astype(integer), integer(width))
    # The remainder changes nothing. XLA copies cheap scalar arithmetic, with all that leads to it,
    # into each of its uses; it takes a remainder for expensive and computes it once.
    bits = lax.rem(bits, integer(jnp.iinfo(integer).max))
    return lax.bitcast_convert_type(bits, wide).astype(dtype)


def top_exponent(array: jax.Array) -> jax.Array:
    """Return ⌊log2 max|array|⌋; DEAD if all entries are 0, and 0 if one is not finite."""
    wide, integer, width, bias = _format_of(array.dtype)
    top = jnp.max(jnp.abs(lax.stop_gradient(array)), initial=0).astype(wide)
    biased = lax.shift_right_logical(lax.bitcast_convert_type(top, integer), integer(width))
    exponent = biased.astype(jnp.int32) - jnp.int32(bias)
    exponent = jnp.where(exponent > bias, jnp.int32(0), exponent)
    return jnp.where(top > 0, exponent, jnp.int32(DEAD))


def shift(array: jax.Array, exponent: jax.Array) -> jax.Array:
    """Multiply an array by 2^exponent, in one step."""
    return array * power_of_two(exponent, array.dtype)


def rescale(value: Value, floor: Any = None) -> Value:
    """Move the largest entry into [1, 2), or as near to it as an exponent ≥ floor allows."""
    top = top_exponent(value.array)
    # Subnormal powers of two may be flushed to 0: stay one power inside the range.
    most = jnp.finfo(value.array.dtype).maxexp - 2
    exponent = jnp.where(top == DEAD, jnp.int32(DEAD), value.exponent + jnp.clip(top, -most, most))
    if floor is not None:
        exponent = jnp.maximum(exponent, floor)
    exponent = lax.rem(exponent, jnp.int32(2**30))  # changes nothing; see power_of_two
    return Value(
        shift(value.array, value.exponent - exponent), exponent, 1.0, floored=floor is not None
    )


def floor_of(sources: Sequence[jax.Array]) -> jax.Array:
    """Return the least exponent of signals: −SLACK if any source is not 0, otherwise DEAD.

    A source is plain: added to a signal of a lower exponent it would overflow.
    """
    # Reduce each source to one number first: of a sharded array only numbers cross devices.
    tops = [jnp.max(jnp.abs(lax.stop_gradient(source)), initial=0) for source in sources]
    wide = max((top.dtype for top in tops), key=lambda d: jnp.finfo(d).bits, default=float)
    alive = jnp.any(jnp.stack([jnp.zeros((), wide), *(top.astype(wide) for top in tops)]) != 0)
    return jnp.where(alive, jnp.int32(-SLACK), jnp.int32(DEAD))


def true_value(value: Value) -> jax.Array:
    """Return the array that a value stands for: infinite or 0 where its dtype cannot hold it."""
    if value.plain or value.neutral:
        return value.array
    return unscale(value.array, value.exponent)


def unscale(mantissa: jax.Array, exponent: jax.Array) -> jax.Array:
    """Multiply out mantissa × 2^exponent: infinite or 0 where the dtype cannot hold it."""
    # In two steps: with a mantissa far from 1, the value may fit where 2^exponent does not.
    most = jnp.finfo(mantissa.dtype).maxexp - 2
    first = jnp.clip(exponent, -most, most)
    return shift(shift(mantissa, first), exponent - first)


def log2(number: Scaled) -> jax.Array:
    """Return log2 of mantissa × 2^exponent: −inf at 0, NaN below."""
    return jnp.log2(number.mantissa) + number.exponent.astype(number.mantissa.dtype)


def unit_exponent(number: Scaled) -> jax.Array:
    """Return the exponent if the value is well inside the range of its dtype, otherwise 0."""
    top = number.exponent + top_exponent(number.mantissa)
    fits = jnp.abs(top) <= jnp.finfo(number.mantissa.dtype).maxexp - 28
    return jnp.where(fits, number.exponent, jnp.int32(0))


def align(
    values: Sequence[Value], floor: Any = None, adding: bool = False
) -> tuple[list[jax.Array], Value]:
    """Bring values to one exponent.

    Args:
      values: what is to be added, joined or compared.
      floor: the least exponent, if there is one.
      adding: whether the values are added; sources then need not raise the exponent.

    Returns:
      The arrays at the joint exponent, and a `Value` without array that describes their sum.
    """
    bits = max(value.bits for value in values)
    relevant = [v for v in values if not v.neutral]
    distinct = {id(v.exponent): v for v in relevant if not v.plain}
    if not distinct:
        return [v.array for v in values], Value(None, 0, bits, not relevant)
    first = next(iter(distinct.values()))
    plain = [v for v in relevant if v.plain]
    covered = adding and first.floored and all(v.source for v in plain)
    if len(distinct) == 1 and (covered or not plain):
        # A signal that became 0 since it was rescaled still sets the exponent: a source that is
        # added to it vanishes only if it is 2^126 times smaller than the signal was.
        joint = Value(None, first.exponent, bits, floored=first.floored)
    else:
        tops = [top_exponent(v.array) + v.exponent for v in relevant]
        tops += [] if floor is None else [floor]
        highest = jnp.maximum(jnp.stack(tops).max(), jnp.int32(DEAD))
        joint = Value(None, highest, 1.0, floored=floor is not None)
    return [_move(v, joint.exponent) for v in values], joint


def align_low(values: Sequence[Value]) -> tuple[list[jax.Array], Value]:
    """Bring a signal and plain values to the lower of their exponents; large ones may overflow."""
    bits = max(value.bits for value in values)
    exponents = [v.exponent for v in values if not v.plain and not v.neutral]
    low = jnp.minimum(jnp.stack(exponents).min(), jnp.int32(0))
    return [_move(v, low) for v in values], Value(None, low, bits)


def _move(value: Value, exponent: jax.Array) -> jax.Array:
    """Return the mantissa of a value at another exponent."""
    if value.neutral or value.exponent is exponent:
        return value.array
    return shift(value.array, value.exponent - exponent)
