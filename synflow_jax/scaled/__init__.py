"""Overflow-free evaluation: any JAX function on (mantissa, power-of-two exponent) pairs."""

from synflow_jax.scaled import loops as loops
from synflow_jax.scaled.array import Scaled as Scaled
from synflow_jax.scaled.array import log2 as log2
from synflow_jax.scaled.array import unit_exponent as unit_exponent
from synflow_jax.scaled.array import unscale as unscale
from synflow_jax.scaled.interpreter import scaled as scaled
