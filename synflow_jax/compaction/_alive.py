"""Where values may be other than 0, and where they may vary with the inputs: bools by entry."""

from collections.abc import Iterator, Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from synflow_jax.compaction._followed import Followed
from synflow_jax.compaction._primitives import Arrays, Entries, primitive_of
from synflow_jax.jaxpr import Listing, Step


def may_be_nonzero(listing: Listing, inputs: Mapping[int, np.ndarray]) -> Entries:
    """Find the entries of every value that may be other than 0 for some input.

    Args:
      listing: the steps.
      inputs: bool arrays by number, of the inputs that are known; of others, all entries may be.

    Returns:
      Bool arrays by number of value.
    """
    found = dict(inputs)
    for number, value in listing.known.items():
        known = not isinstance(value, Tracer) and jnp.issubdtype(value.dtype, jnp.number)
        found[number] = np.asarray(value) != 0 if known else np.ones(listing.shape(number), bool)
    for number in listing.inputs:
        found.setdefault(number, np.ones(listing.shape(number), bool))
    for step in _steps(listing.steps, found):
        operands = [found[number] for number in step.operands]
        results = primitive_of(step).alive(listing, step, operands)
        found.update(zip(step.results, results, strict=True))
    return found


def emit_constants(
    state: Followed, nonzero: Entries, inputs: Sequence[int], kept: np.ndarray
) -> np.ndarray:
    """Find the units that stay although nothing of the input reaches them: they emit a constant.

    They stand in some value that is computed from the inputs, and no entry of theirs varies.

    Args:
      state: the units of every value.
      nonzero: where every value may be other than 0.
      inputs: numbers of the network's inputs.
      kept: bool by number of unit, which stay.

    Returns:
      bool by number of unit.
    """
    stand, vary = np.zeros_like(kept), np.zeros_like(kept)
    for number, array in _may_vary(state.listing, nonzero, inputs).items():
        for axis, ids in enumerate(state.names(number)):
            others = tuple(k for k in range(array.ndim) if k != axis)
            stand[ids] = True
            vary[ids[array.any(others)]] = True
    return kept & stand & ~vary


def _may_vary(listing: Listing, nonzero: Entries, inputs: Sequence[int]) -> Entries:
    """Find the entries that may vary with the inputs, of every value computed from them."""
    found = {number: nonzero[number] for number in inputs}
    for step in _steps(listing.steps, found):
        if found.keys() & set(step.operands):
            found.update(zip(step.results, _vary(listing, step, found, nonzero), strict=True))
    return found


def _vary(listing: Listing, step: Step, found: Entries, nonzero: Entries) -> Arrays:
    alive = [nonzero[number] for number in step.operands]
    varying = [found.get(n, np.zeros_like(a)) for n, a in zip(step.operands, alive, strict=True)]
    results = [nonzero[number] for number in step.results]
    if not any(array.any() for array in varying):
        return [np.zeros_like(result) for result in results]
    primitive = primitive_of(step)
    if primitive.varies is None:
        found_here = primitive.alive(listing, step, varying)
    else:
        found_here = primitive.varies(listing, step, varying, alive)
    return [array & result for array, result in zip(found_here, results, strict=True)]


def _steps(steps: Sequence[Step], found: Entries) -> Iterator[Step]:
    """Yield the steps in order, bodies first, and copy what a body found to its step's results."""
    for step in steps:
        if step.inner:
            yield from _steps(step.body, found)
            pairs = zip(step.results, step.inner, strict=True)
            found.update((result, found[n]) for result, n in pairs if n in found)
        else:
            yield step
