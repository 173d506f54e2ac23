"""The adapter of Flax Linen, in the place where users look for it."""

from synflow_jax.frameworks.linen import from_linen as from_linen
from synflow_jax.frameworks.linen import to_linen as to_linen
