"""The structure of a network, read from its trace: roles and axes of leaves, breaks of homogeneity.

Knows jaxprs. Knows no score, no mask and no choice of the user's.
"""

from synflow_jax.structure._marks import MASKED as MASKED
from synflow_jax.structure._reading import Break as Break
from synflow_jax.structure._reading import Reading as Reading
from synflow_jax.structure._reading import Stack as Stack
from synflow_jax.structure._reading import Use as Use
from synflow_jax.structure._reading import find_lookups as find_lookups
from synflow_jax.structure._reading import flax_sides as flax_sides
from synflow_jax.structure._reading import read_loss as read_loss
from synflow_jax.structure._reading import read_network as read_network
from synflow_jax.structure._reading import read_trace as read_trace
from synflow_jax.structure._words import describe as describe

__all__ = ["Break", "Reading", "Stack", "Use"]
