"""The adapter of Flax Linen, under its public name; the code is in `frameworks`."""

from synflow_jax.frameworks.linen import from_linen as from_linen
from synflow_jax.frameworks.linen import to_linen as to_linen
