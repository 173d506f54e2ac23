"""Exact selection of the largest scores, without a sort.

The cut between kept and pruned scores is found by counting how many scores reach a pivot; ties are
broken by flat index. Knows arrays and counts; knows no network, no method and no tree.
"""

from synflow_jax.selection._bracket import cut_scores as cut_scores
from synflow_jax.selection._counting import compare as compare
from synflow_jax.selection._counting import count_dtype as count_dtype
from synflow_jax.selection._counting import count_kept as count_kept
from synflow_jax.selection._counting import count_true as count_true
from synflow_jax.selection._counting import sum_counts as sum_counts
from synflow_jax.selection._keys import key_of as key_of
from synflow_jax.selection._keys import octave_of as octave_of
from synflow_jax.selection._keys import unsigned_of as unsigned_of
from synflow_jax.selection._keys import value_of as value_of
from synflow_jax.selection._packing import Leaves as Leaves
from synflow_jax.selection._packing import Packing as Packing
from synflow_jax.selection._packing import count_layers as count_layers
from synflow_jax.selection._packing import packing_of as packing_of
from synflow_jax.selection._prefix import prefix_size as prefix_size
from synflow_jax.selection._top_k import flat_index as flat_index
from synflow_jax.selection._top_k import select as select

__all__: list[str] = []
