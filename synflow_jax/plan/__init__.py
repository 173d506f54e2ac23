"""What is pruned, what competes with what, and how many stay after each round.

Reads the user's choices (prunable leaves, patterns, scopes, schedules, ratios, floors) and turns
them into one checked `Plan` and the counts of each round. Knows names and shapes; knows no score.
"""

from synflow_jax.plan._layers import Kernels as Kernels
from synflow_jax.plan._layers import Layers as Layers
from synflow_jax.plan._layers import choose as choose
from synflow_jax.plan._layers import find_layers as find_layers
from synflow_jax.plan._layers import is_prunable as is_prunable
from synflow_jax.plan._layers import kernels as kernels
from synflow_jax.plan._layers import layer_names as layer_names
from synflow_jax.plan._layers import read_structure as read_structure
from synflow_jax.plan._layout import Layout as Layout
from synflow_jax.plan._layout import find_stacks as find_stacks
from synflow_jax.plan._matching import check_matching as check_matching
from synflow_jax.plan._matching import matching as matching
from synflow_jax.plan._patterns import blocks as blocks
from synflow_jax.plan._patterns import channels as channels
from synflow_jax.plan._patterns import check_pattern as check_pattern
from synflow_jax.plan._patterns import is_pattern as is_pattern
from synflow_jax.plan._patterns import slices as slices
from synflow_jax.plan._patterns import unstructured as unstructured
from synflow_jax.plan._plan import ByGroup as ByGroup
from synflow_jax.plan._plan import ByLayer as ByLayer
from synflow_jax.plan._plan import InRuns as InRuns
from synflow_jax.plan._plan import Members as Members
from synflow_jax.plan._plan import Plan as Plan
from synflow_jax.plan._plan import Together as Together
from synflow_jax.plan._plan import check_functions as check_functions
from synflow_jax.plan._plan import check_ratios as check_ratios
from synflow_jax.plan._plan import make_plan as make_plan
from synflow_jax.plan._plan import plan_copied as plan_copied
from synflow_jax.plan._schedule import Certified as Certified
from synflow_jax.plan._schedule import certified as certified
from synflow_jax.plan._schedule import cubic as cubic
from synflow_jax.plan._schedule import exponential as exponential
from synflow_jax.plan._schedule import linear as linear
from synflow_jax.plan._schedule import one_shot as one_shot
from synflow_jax.plan._scope import Runs as Runs
from synflow_jax.plan._scope import erk as erk
from synflow_jax.plan._scope import globally as globally
from synflow_jax.plan._scope import layerwise as layerwise
from synflow_jax.plan._scope import runs as runs
from synflow_jax.plan._scope import uniform as uniform
from synflow_jax.plan._units import count_units as count_units
from synflow_jax.plan._units import spread_units as spread_units
from synflow_jax.plan._units import sum_units as sum_units
from synflow_jax.plan._units import unit_shape as unit_shape

__all__ = [
    "blocks",
    "certified",
    "channels",
    "cubic",
    "erk",
    "exponential",
    "globally",
    "is_prunable",
    "kernels",
    "layerwise",
    "linear",
    "matching",
    "one_shot",
    "runs",
    "slices",
    "uniform",
    "unstructured",
]
