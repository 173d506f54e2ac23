"""Which units the output needs: those of which some sum adds a term that may be other than 0."""

import numpy as np

from synflow_jax.compaction._followed import Followed
from synflow_jax.compaction._primitives import Entries, primitive_of
from synflow_jax.compaction._units import WHOLE


def needed(state: Followed, nonzero: Entries) -> np.ndarray:
    """Find the units that stay: those of the output, and those that feed a unit that stays.

    A unit that no sum needs does not reach the output. It is removed with every weight, bias and
    statistic at its positions.

    Args:
      state: the units of every value; those of the output are kept whole.
      nonzero: where every value may be other than 0.

    Returns:
      bool by number of unit.
    """
    kept = np.zeros(len(state.units.parents), bool)
    kept[WHOLE] = True
    pairs = [(step, primitive_of(step).needs) for step in state.listing.every_step()]
    before = -1
    while (now := int(kept.sum())) != before:
        before = now
        for step, needs in reversed(pairs):
            for ids, some_term in needs(state, step, nonzero, kept) if needs else ():
                kept[state.units.find(ids[some_term])] = True
    return kept
