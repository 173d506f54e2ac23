"""Measurements of a network: its flow, its structure, and what masks disconnect.

Knows how much flow there is, by leaf and by unit, which layers collapsed, which weights lie on a
path from input to output, and in which order layers are used. Changes and prunes nothing.
"""

from synflow_jax.measure._collapse import collapsed_layers as collapsed_layers
from synflow_jax.measure._collapse import critical_compression as critical_compression
from synflow_jax.measure._collapse import dead_branches as dead_branches
from synflow_jax.measure._collapse import effective_density as effective_density
from synflow_jax.measure._collapse import live_weights as live_weights
from synflow_jax.measure._collapse import max_compression as max_compression
from synflow_jax.measure._flow import NeuronFlow as NeuronFlow
from synflow_jax.measure._flow import any_log2_flow as any_log2_flow
from synflow_jax.measure._flow import conservation_gap as conservation_gap
from synflow_jax.measure._flow import explain_flow as explain_flow
from synflow_jax.measure._flow import flow_shares as flow_shares
from synflow_jax.measure._flow import layer_flow as layer_flow
from synflow_jax.measure._flow import log2_flow as log2_flow
from synflow_jax.measure._flow import neuron_flow as neuron_flow
from synflow_jax.measure._score import flow_score as flow_score
from synflow_jax.measure._slices import each_layer as each_layer
from synflow_jax.measure._slices import layers_of as layers_of
from synflow_jax.measure._structure import Sides as Sides
from synflow_jax.measure._structure import find_sides as find_sides
from synflow_jax.measure._structure import layer_order as layer_order
from synflow_jax.measure._structure import stacked_layers as stacked_layers

__all__ = [
    "NeuronFlow",
    "collapsed_layers",
    "conservation_gap",
    "critical_compression",
    "dead_branches",
    "effective_density",
    "flow_score",
    "layer_flow",
    "layer_order",
    "log2_flow",
    "max_compression",
    "neuron_flow",
    "stacked_layers",
]
