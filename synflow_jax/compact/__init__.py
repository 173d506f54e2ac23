"""Units found through the jaxpr of any function, and removed: dead ones, or as a budget asks."""

from synflow_jax.compact.cost import entries as entries
from synflow_jax.compact.cost import multiply_adds as multiply_adds
from synflow_jax.compact.cost import num_bytes as num_bytes
from synflow_jax.compact.network import Compact as Compact
from synflow_jax.compact.network import compact as compact
from synflow_jax.compact.slim import slim as slim
