"""Units that stay although nothing of the input reaches them: they emit a constant."""

from typing import Any

import numpy as np

from synflow_jax.compaction._follow import Followed
from synflow_jax.compaction._zeros import MOVES, SUMS, Entries, all_of, inside, on_ones
from synflow_jax.jaxpr import ELEMENTWISE, Listing, Step

PAIRS = ("dot_general", "conv_general_dilated")


def emit_constants(
    state: Followed, nonzero: Entries, inputs: list[int], kept: np.ndarray
) -> np.ndarray:
    """Find the units that stay, stand in what is computed from the inputs, and vary with none.

    Args:
      state: the units of every value.
      nonzero: where values may be other than 0.
      inputs: numbers of the network's inputs.
      kept: which units stay.

    Returns:
      bool by number of unit.
    """
    stand, vary = np.zeros_like(kept), np.zeros_like(kept)
    for number, array in _varying(state.listing, nonzero, inputs).items():
        for axis, ids in enumerate(state.of(number)):
            others = tuple(k for k in range(array.ndim) if k != axis)
            stand[state.units.find(ids)] = True
            vary[state.units.find(ids[array.any(others)])] = True
    return kept & stand & ~vary


def _varying(listing: Listing, nonzero: Entries, inputs: list[int]) -> Entries:
    """Say of every entry of what is computed from the inputs whether it may vary with them."""
    found = {number: nonzero[number] for number in inputs}
    for step in inside(listing.steps, found):
        if found.keys() & set(step.operands):
            found.update(zip(step.results, _of_step(step, found, nonzero, listing), strict=True))
    return found


def _of_step(step: Step, found: Entries, nonzero: Entries, listing: Listing) -> list[Any]:
    there = [nonzero[number] for number in step.operands]
    varying = [found.get(n, np.zeros_like(a)) for n, a in zip(step.operands, there, strict=True)]
    results = [nonzero[number] for number in step.results]
    if not any(array.any() for array in varying):
        return [np.zeros_like(result) for result in results]
    if step.name in ELEMENTWISE:
        spread = [np.broadcast_to(array, results[0].shape) for array in varying]
        return [np.logical_or.reduce(spread) & results[0]]
    if step.name not in (*SUMS, *MOVES):
        return [all_of(listing.avals[number]) for number in step.results]
    ways = [varying]
    if step.name in PAIRS:  # of products, of which either factor may vary
        ways = [[varying[0], there[1]], [there[0], varying[1]]]
    sums = [on_ones(step, way, listing) for way in ways]
    return [np.logical_or.reduce(rows) for rows in zip(*sums, strict=True)]
