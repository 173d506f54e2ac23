"""Masks inside an Optax training loop: kept fixed, or pruned further during training.

Knows how gradients, updates and optimiser states are masked. Knows no model and no data.
"""

from synflow_jax.training._gradual import GradualState as GradualState
from synflow_jax.training._gradual import gradual_magnitude as gradual_magnitude
from synflow_jax.training._keep import KeepMasksState as KeepMasksState
from synflow_jax.training._keep import keep_masks as keep_masks

__all__ = [
    "GradualState",
    "KeepMasksState",
    "gradual_magnitude",
    "keep_masks",
]
