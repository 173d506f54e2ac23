"""Flow mode: what stands in for norms, gates and attention, so that flow is conserved."""

from synflow_jax.flow.mode import FlowWarning as FlowWarning
from synflow_jax.flow.mode import closed_leaves as closed_leaves
from synflow_jax.flow.mode import flow_mode as flow_mode
