"""The loop that prunes: score, select, measure, round after round.

Knows how a plan and a saliency become masks, in one compiled loop or on the host, what to say about
the result, and the controls that a fair comparison needs. Knows no single method.
"""

from synflow_jax.pruning._controls import reinitialise as reinitialise
from synflow_jax.pruning._controls import shuffle as shuffle
from synflow_jax.pruning._info import PruneInfo as PruneInfo
from synflow_jax.pruning._options import Choice as Choice
from synflow_jax.pruning._options import Options as Options
from synflow_jax.pruning._options import check_options as check_options
from synflow_jax.pruning._prune import prune as prune
from synflow_jax.pruning._prune import run_copied as run_copied
from synflow_jax.pruning._remedies import Asked as Asked
from synflow_jax.pruning._rounds import fixed_loop as fixed_loop
from synflow_jax.pruning._rounds import full_masks as full_masks
from synflow_jax.pruning._rounds import measure as measure
from synflow_jax.pruning._sweep import sweep_dead as sweep_dead
from synflow_jax.trees import CollapseWarning as CollapseWarning
from synflow_jax.trees import UncertifiedWarning as UncertifiedWarning

__all__ = [
    "Choice",
    "CollapseWarning",
    "Options",
    "PruneInfo",
    "UncertifiedWarning",
    "prune",
    "reinitialise",
    "shuffle",
]
