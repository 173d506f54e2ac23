"""The adapter of Flax NNX, under its public name; the code is in `frameworks`."""

from synflow_jax.frameworks.nnx import from_nnx as from_nnx
from synflow_jax.frameworks.nnx import to_nnx as to_nnx
