"""The cut between kept and pruned scores, found by counting.

Floats and the whole numbers of their bits order alike. A bracket of such numbers, the keys, holds
the cut; each pass counts how many scores reach each of seven pivots and leaves an eighth of it,
until a pivot is reached by exactly as many as shall stay. Only counts leave a leaf, so that leaves
are never concatenated and the layout across devices does not matter.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


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
