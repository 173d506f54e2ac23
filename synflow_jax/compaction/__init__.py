"""Smaller networks: the units that a mask, or a budget, leaves without use are removed.

Follows units through the trace of any function. `_primitives.py` has the one table that says, for
each primitive of JAX, how units pass, where values may be other than 0, which units a sum needs,
how it runs on what is left, and what it costs: a new primitive is one entry of `PRIMITIVES`. Knows
no schedule of pruning beyond `slim`'s own.
"""

from synflow_jax.compaction._compact import Compact as Compact
from synflow_jax.compaction._compact import compact as compact
from synflow_jax.compaction._cost import entries as entries
from synflow_jax.compaction._cost import multiply_adds as multiply_adds
from synflow_jax.compaction._cost import num_bytes as num_bytes
from synflow_jax.compaction._primitives import PRIMITIVES as PRIMITIVES
from synflow_jax.compaction._primitives import Primitive as Primitive
from synflow_jax.compaction._slim import slim as slim

__all__ = [
    "Compact",
    "compact",
    "entries",
    "multiply_adds",
    "num_bytes",
    "slim",
]
