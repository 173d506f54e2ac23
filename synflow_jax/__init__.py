"""Prune networks before training, with SynFlow and other methods, in JAX.

The names used most are here; the others are in subpackages, such as `synflow_jax.measure`.
`synflow_jax.linen` and `synflow_jax.nnx` are imported on first use, since they import Flax.
"""

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from synflow_jax import compaction as compaction
from synflow_jax import files as files
from synflow_jax import flow as flow
from synflow_jax import measure as measure
from synflow_jax import plan as plan
from synflow_jax import pruning as pruning
from synflow_jax import saliency as saliency
from synflow_jax import show as show
from synflow_jax import training as training
from synflow_jax._version import __version__ as __version__
from synflow_jax.compaction import compact as compact
from synflow_jax.compaction import slim as slim
from synflow_jax.files import load_masks as load_masks
from synflow_jax.files import save_masks as save_masks
from synflow_jax.flow import flow_mode as flow_mode
from synflow_jax.measure import collapsed_layers as collapsed_layers
from synflow_jax.measure import effective_density as effective_density
from synflow_jax.measure import log2_flow as log2_flow
from synflow_jax.methods import grasp as grasp
from synflow_jax.methods import magnitude as magnitude
from synflow_jax.methods import random as random
from synflow_jax.methods import snip as snip
from synflow_jax.methods import synflow as synflow
from synflow_jax.methods import synflow_l2 as synflow_l2
from synflow_jax.plan import certified as certified
from synflow_jax.plan import channels as channels
from synflow_jax.plan import erk as erk
from synflow_jax.plan import exponential as exponential
from synflow_jax.plan import globally as globally
from synflow_jax.plan import layerwise as layerwise
from synflow_jax.plan import linear as linear
from synflow_jax.plan import matching as matching
from synflow_jax.plan import one_shot as one_shot
from synflow_jax.plan import runs as runs
from synflow_jax.pruning import CollapseWarning as CollapseWarning
from synflow_jax.pruning import PruneInfo as PruneInfo
from synflow_jax.pruning import UncertifiedWarning as UncertifiedWarning
from synflow_jax.pruning import prune as prune
from synflow_jax.saliency import cross_entropy as cross_entropy
from synflow_jax.saliency import gradient_saliency as gradient_saliency
from synflow_jax.saliency import synflow_saliency as synflow_saliency
from synflow_jax.show import report as report
from synflow_jax.show import visualize as visualize
from synflow_jax.training import gradual_magnitude as gradual_magnitude
from synflow_jax.training import keep_masks as keep_masks
from synflow_jax.trees import apply_masks as apply_masks

__all__ = [
    "CollapseWarning",
    "PruneInfo",
    "UncertifiedWarning",
    "apply_masks",
    "certified",
    "channels",
    "collapsed_layers",
    "compact",
    "cross_entropy",
    "effective_density",
    "erk",
    "exponential",
    "flow_mode",
    "globally",
    "gradient_saliency",
    "gradual_magnitude",
    "grasp",
    "keep_masks",
    "layerwise",
    "linear",
    "load_masks",
    "log2_flow",
    "magnitude",
    "matching",
    "one_shot",
    "prune",
    "random",
    "report",
    "runs",
    "save_masks",
    "slim",
    "snip",
    "synflow",
    "synflow_l2",
    "synflow_saliency",
    "visualize",
]

if TYPE_CHECKING:
    from synflow_jax.frameworks import linen as linen
    from synflow_jax.frameworks import nnx as nnx


def __getattr__(name: str) -> Any:
    """Import the adapter of a framework on first use."""
    module, short = f"synflow_jax.frameworks.{name}", f"synflow_jax.{name}"
    if not name.startswith("_") and importlib.util.find_spec(module) is not None:
        # Through the short module, where there is one, so that each way gives the same.
        return importlib.import_module(short if importlib.util.find_spec(short) else module)
    raise AttributeError(f"module 'synflow_jax' has no attribute {name!r}")
