"""Scores: what a method is, as an objective R(θ) whose derivative ranks the weights.

Knows the protocol that every saliency follows, the objectives, the flow saliencies of SynFlow, and
those that read data. Knows nothing of counts and rounds.
"""

from synflow_jax.saliency._data import grasp_saliency as grasp_saliency
from synflow_jax.saliency._data import snip_saliency as snip_saliency
from synflow_jax.saliency._flow import FlowSaliency as FlowSaliency
from synflow_jax.saliency._flow import synflow_l2_saliency as synflow_l2_saliency
from synflow_jax.saliency._flow import synflow_saliency as synflow_saliency
from synflow_jax.saliency._gradient import RandomSaliency as RandomSaliency
from synflow_jax.saliency._gradient import gradient_saliency as gradient_saliency
from synflow_jax.saliency._gradient import highest_precision as highest_precision
from synflow_jax.saliency._gradient import magnitude_saliency as magnitude_saliency
from synflow_jax.saliency._gradient import random_saliency as random_saliency
from synflow_jax.saliency._objectives import absolute as absolute
from synflow_jax.saliency._objectives import cross_entropy as cross_entropy
from synflow_jax.saliency._objectives import gradient_norm as gradient_norm
from synflow_jax.saliency._objectives import grow as grow
from synflow_jax.saliency._objectives import sum_outputs as sum_outputs
from synflow_jax.saliency._objectives import weight_energy as weight_energy
from synflow_jax.saliency._protocol import Pruned as Pruned
from synflow_jax.saliency._protocol import Saliency as Saliency
from synflow_jax.saliency._protocol import as_saliency as as_saliency
from synflow_jax.saliency._protocol import checked_scores as checked_scores
from synflow_jax.saliency._protocol import unit_scores as unit_scores

__all__ = [
    "Saliency",
    "cross_entropy",
    "gradient_norm",
    "gradient_saliency",
    "grasp_saliency",
    "magnitude_saliency",
    "random_saliency",
    "snip_saliency",
    "synflow_l2_saliency",
    "synflow_saliency",
    "weight_energy",
]
