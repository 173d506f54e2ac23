"""Keys: unsigned integers, made of the bits of floats, that are ordered as the floats are."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def key_of(score: jax.Array) -> jax.Array:
    """Map floats to unsigned integers of the same order; NaN gets 0, the lowest, and −0 is 0."""
    unsigned = unsigned_of(score.dtype)
    top = jnp.array(1, unsigned) << (jnp.iinfo(unsigned).bits - 1)
    bits = lax.bitcast_convert_type(jnp.where(score == 0, jnp.zeros_like(score), score), unsigned)
    key = jnp.where(bits >= top, ~bits, bits | top)
    return jnp.where(jnp.isnan(score), jnp.zeros_like(key), key)


def value_of(key: jax.Array, dtype: Any) -> jax.Array:
    """Return the float of a key, the inverse of `key_of`.

    Keys below that of −∞ give −∞; keys above that of ∞ give NaN, which no score reaches.
    """
    top = jnp.array(1, key.dtype) << (jnp.iinfo(key.dtype).bits - 1)
    least = key_of(jnp.array(-jnp.inf, dtype))
    high = jnp.maximum(key, least)
    return lax.bitcast_convert_type(jnp.where(high >= top, high ^ top, ~high), dtype)


def unsigned_of(dtype: Any) -> Any:
    """Return the unsigned dtype of the same width as a floating dtype: that of its keys."""
    return jnp.dtype(f"uint{jnp.finfo(dtype).bits}")


def octave_of(dtype: Any) -> float:
    """Return the number of keys between one power of two and the next."""
    return 2.0 ** jnp.finfo(dtype).nmant
