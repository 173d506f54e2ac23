"""Which units the output needs: those that some sum adds a term of that may not be 0."""

from collections.abc import Iterator, Sequence

import numpy as np

from synflow_jax.compaction._follow import Followed
from synflow_jax.compaction._zeros import Entries
from synflow_jax.jaxpr import Step

Terms = Iterator[tuple[np.ndarray, np.ndarray]]  # units of an axis, and which some term needs


def needed(state: Followed, nonzero: Entries) -> np.ndarray:
    """Find the units that stay: those of the output, and what feeds what stays, to the end.

    A unit that no sum needs has no part in the output: it goes, and with it every weight, bias and
    statistic that stands at its positions.

    Returns:
      bool by number of unit.
    """
    kept = np.zeros(len(state.units.parents), bool)
    kept[0] = True
    sums = [step for step in state.listing.every_step() if step.name in TERMS]
    before = -1
    while (now := int(kept.sum())) != before:
        before = now
        for step in reversed(sums):
            for ids, needs in TERMS[step.name](state, step, nonzero, kept):
                kept[state.units.find(ids[needs])] = True
    return kept


def stays(state: Followed, number: int, kept: np.ndarray) -> list[np.ndarray]:
    """Say of the positions along each axis of a value whether they stay."""
    return [kept[state.units.find(ids)] for ids in state.of(number)]


def _rest(array: np.ndarray, masks: list[np.ndarray], axes: Sequence[int]) -> np.ndarray:
    """Ask, at each position of `axes`, if any entry there is True among those that stay."""
    others = [k for k in range(array.ndim) if k not in axes]
    small = array
    for k in others:
        if not masks[k].all():
            small = np.compress(masks[k], small, axis=k)
    rows = np.moveaxis(small, axes, range(len(axes)))
    return np.logical_or.reduce(rows, axis=tuple(range(len(axes), rows.ndim)))


def _of_dot(state: Followed, step: Step, nonzero: Entries, kept: np.ndarray) -> Terms:
    contract, batch = step.eqn.params["dimension_numbers"]
    sides = []
    for side, number in enumerate(step.operands):
        axes = (*batch[side], *contract[side])
        sides.append(_rest(nonzero[number], stays(state, number, kept), axes))
    both, shared = sides[0] & sides[1], len(batch[0])
    lanes = stays(state, step.operands[0], kept)
    for place, axis in enumerate(batch[0]):
        both = np.compress(lanes[axis], both, axis=place)
    terms = np.logical_or.reduce(both, axis=tuple(range(shared)))
    for place, axis in enumerate(contract[0]):
        others = tuple(k for k in range(terms.ndim) if k != place)
        yield state.of(step.operands[0])[axis], np.logical_or.reduce(terms, axis=others)


def _of_conv(state: Followed, step: Step, nonzero: Entries, kept: np.ndarray) -> Terms:
    lhs, rhs, _ = step.eqn.params["dimension_numbers"]
    if step.eqn.params["feature_group_count"] == 1:
        x, kernel = step.operands
        fed = _rest(nonzero[x], stays(state, x, kept), (lhs[1],))
        leads = _rest(nonzero[kernel], stays(state, kernel, kept), (rhs[1],))
        yield state.of(x)[lhs[1]], fed & leads


def _of_sum(state: Followed, step: Step, nonzero: Entries, kept: np.ndarray) -> Terms:
    number = step.operands[0]
    for axis in step.eqn.params["axes"]:
        yield state.of(number)[axis], _rest(nonzero[number], stays(state, number, kept), (axis,))


TERMS = {"dot_general": _of_dot, "conv_general_dilated": _of_conv, "reduce_sum": _of_sum}
