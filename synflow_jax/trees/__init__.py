"""Pytrees of arrays: named leaves, masks, shardings, checks of arguments, and warnings.

Knows how leaves are named, picked and replaced, how jit compares functions, how arrays are sharded,
how a batch of ones is built from `shape`, and how arguments are refused. Knows nothing of pruning.
"""

from synflow_jax.trees._checks import MOST_ROUNDS as MOST_ROUNDS
from synflow_jax.trees._checks import check_bool as check_bool
from synflow_jax.trees._checks import check_finite as check_finite
from synflow_jax.trees._checks import check_int as check_int
from synflow_jax.trees._checks import check_key as check_key
from synflow_jax.trees._checks import check_like as check_like
from synflow_jax.trees._checks import check_masks as check_masks
from synflow_jax.trees._checks import check_rho as check_rho
from synflow_jax.trees._checks import check_rounds as check_rounds
from synflow_jax.trees._checks import check_structure as check_structure
from synflow_jax.trees._checks import is_traced as is_traced
from synflow_jax.trees._checks import max_abs as max_abs
from synflow_jax.trees._checks import write_limit as write_limit
from synflow_jax.trees._doors import as_arrays as as_arrays
from synflow_jax.trees._doors import converted as converted
from synflow_jax.trees._doors import small_transfers as small_transfers
from synflow_jax.trees._doors import without_gradient as without_gradient
from synflow_jax.trees._functions import QUICK as QUICK
from synflow_jax.trees._functions import Function as Function
from synflow_jax.trees._functions import as_function as as_function
from synflow_jax.trees._functions import call_traced as call_traced
from synflow_jax.trees._inputs import Inputs as Inputs
from synflow_jax.trees._inputs import NetworkError as NetworkError
from synflow_jax.trees._inputs import OutputsError as OutputsError
from synflow_jax.trees._inputs import call_network as call_network
from synflow_jax.trees._inputs import call_on_ones as call_on_ones
from synflow_jax.trees._inputs import read_shape as read_shape
from synflow_jax.trees._leaves import all_true as all_true
from synflow_jax.trees._leaves import clip as clip
from synflow_jax.trees._leaves import distinct_leaves as distinct_leaves
from synflow_jax.trees._leaves import floating_dtype as floating_dtype
from synflow_jax.trees._leaves import is_floating as is_floating
from synflow_jax.trees._leaves import is_weight as is_weight
from synflow_jax.trees._leaves import listed_names as listed_names
from synflow_jax.trees._leaves import named_leaves as named_leaves
from synflow_jax.trees._leaves import path_string as path_string
from synflow_jax.trees._leaves import pick as pick
from synflow_jax.trees._leaves import place as place
from synflow_jax.trees._leaves import shown as shown
from synflow_jax.trees._leaves import shown_names as shown_names
from synflow_jax.trees._leaves import widen as widen
from synflow_jax.trees._masks import apply_masks as apply_masks
from synflow_jax.trees._masks import masked as masked
from synflow_jax.trees._shardings import as_if_auto as as_if_auto
from synflow_jax.trees._shardings import lay_out_as as lay_out_as
from synflow_jax.trees._shardings import permute_entries as permute_entries
from synflow_jax.trees._shardings import uniform_like as uniform_like
from synflow_jax.trees._shardings import whole_everywhere as whole_everywhere
from synflow_jax.trees._shardings import zeros_as as zeros_as
from synflow_jax.trees._types import ApplyFn as ApplyFn
from synflow_jax.trees._types import LossFn as LossFn
from synflow_jax.trees._types import Masks as Masks
from synflow_jax.trees._types import Params as Params
from synflow_jax.trees._types import Pattern as Pattern
from synflow_jax.trees._types import Prunable as Prunable
from synflow_jax.trees._types import Schedule as Schedule
from synflow_jax.trees._types import Scope as Scope
from synflow_jax.trees._types import ScoreFn as ScoreFn
from synflow_jax.trees._types import Scores as Scores
from synflow_jax.trees._types import Shape as Shape
from synflow_jax.trees._warnings import CollapseWarning as CollapseWarning
from synflow_jax.trees._warnings import UncertifiedWarning as UncertifiedWarning
from synflow_jax.trees._warnings import is_library as is_library
from synflow_jax.trees._warnings import warn as warn

__all__ = [
    "apply_masks",
]
