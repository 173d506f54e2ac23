"""Overflow-free evaluation: arrays are mantissa × 2^exponent, and no product leaves the range.

Any function that JAX traces is interpreted on pairs (mantissa, exponent). Knows the primitives of
JAX and how each acts on a pair; knows nothing of pruning.
"""

from synflow_jax.scaled._array import Scaled as Scaled
from synflow_jax.scaled._array import log2 as log2
from synflow_jax.scaled._array import power_of_two as power_of_two
from synflow_jax.scaled._array import unit_exponent as unit_exponent
from synflow_jax.scaled._array import unscale as unscale
from synflow_jax.scaled._convolutions import as_product as as_product
from synflow_jax.scaled._convolutions import is_better_as_product as is_better_as_product
from synflow_jax.scaled._interpreter import scaled as scaled

__all__ = [
    "Scaled",
    "scaled",
]
