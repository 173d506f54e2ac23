"""Dead units found through the jaxpr of any function, and removed."""

from synflow_jax.compact.network import Compact as Compact
from synflow_jax.compact.network import compact as compact
