"""The adapter of Flax NNX, in the place where users look for it."""

from synflow_jax.frameworks.nnx import from_nnx as from_nnx
from synflow_jax.frameworks.nnx import to_nnx as to_nnx
