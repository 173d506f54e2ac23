"""Flow mode: any network made homogeneous of degree 1 and monotone, so that flow is conserved.

Knows what replaces norms, activations, gates, attention and routing, which leaves are sources, and
what in a network breaks homogeneity. Knows no score and no mask.
"""

from synflow_jax.flow._closed import closed_leaves as closed_leaves
from synflow_jax.flow._closed import find_closed as find_closed
from synflow_jax.flow._homogeneity import Homogeneity as Homogeneity
from synflow_jax.flow._homogeneity import homogeneity_report as homogeneity_report
from synflow_jax.flow._mode import FlowWarning as FlowWarning
from synflow_jax.flow._mode import flow_mode as flow_mode
from synflow_jax.flow._network import Network as Network
from synflow_jax.flow._network import as_network as as_network
from synflow_jax.flow._outputs import Outputs as Outputs
from synflow_jax.flow._outputs import choose_outputs as choose_outputs
from synflow_jax.flow._rows import Untied as Untied
from synflow_jax.flow._rows import even_rows as even_rows
from synflow_jax.flow._shares import share_evenly as share_evenly
from synflow_jax.flow._sources import only_added as only_added

__all__ = [
    "FlowWarning",
    "Homogeneity",
    "Network",
    "choose_outputs",
    "closed_leaves",
    "flow_mode",
    "homogeneity_report",
]
