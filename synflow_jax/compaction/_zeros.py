"""Which entries are 0 whatever the input is: followed on arrays that say where they may not be."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from synflow_jax.jaxpr import ELEMENTWISE, Listing, Step, bind

# Sums of products: of numbers 0 and 1 they are 0 exactly where all of their terms are.
Entries = dict[int, np.ndarray]  # of values by number: a bool array for each
SUMS = ("dot_general", "conv_general_dilated", "reduce_sum", "reduce_window_sum", "cumsum")
MOVES = (
    *("reshape", "transpose", "squeeze", "broadcast_in_dim", "slice", "split", "concatenate"),
    *("pad", "rev", "reduce_max", "reduce_window_max", "copy", "copy_p", "optimization_barrier"),
)
PRODUCTS = frozenset({"mul", "and"})


def may_be_nonzero(listing: Listing, inputs: Mapping[int, np.ndarray]) -> Entries:
    """Say of every entry of every value whether it may be other than 0, for some input.

    Args:
      listing: the steps.
      inputs: bool arrays by number, of the inputs that are known; of others, all may be.

    Returns:
      Bool arrays by number.
    """
    found = dict(inputs)
    for number, value in listing.known.items():
        known = not isinstance(value, Tracer) and jnp.issubdtype(value.dtype, jnp.number)
        found[number] = np.asarray(value) != 0 if known else all_of(listing.avals[number])
    for number in listing.inputs:
        found.setdefault(number, all_of(listing.avals[number]))
    for step in inside(listing.steps, found):
        operands = [found[number] for number in step.operands]
        found.update(zip(step.results, _of_step(step, operands, listing), strict=True))
    return found


def inside(steps: Any, found: Entries) -> Iterator[Step]:
    """Go through the steps; what a body ends in is what its step has."""
    for step in steps:
        if step.inner:
            yield from inside(step.body, found)
            pairs = zip(step.results, step.inner, strict=True)
            found.update((result, found[n]) for result, n in pairs if n in found)
        else:
            yield step


def all_of(aval: Any) -> np.ndarray:
    """Say so of all entries."""
    return np.ones(getattr(aval, "shape", ()), bool)


def _of_step(step: Step, operands: list[np.ndarray], listing: Listing) -> list[np.ndarray]:
    if step.name in (*SUMS, *MOVES):
        return on_ones(step, operands, listing)
    results = [listing.avals[number] for number in step.results]
    if step.name in ELEMENTWISE and len(results) == 1:
        return [_elementwise(step, operands, listing, results[0].shape)]
    return [all_of(aval) for aval in results]


def on_ones(step: Step, operands: list[np.ndarray], listing: Listing) -> list[np.ndarray]:
    """Run a sum or a move on 1 where an operand is True, and say where the result is not 0."""
    avals = [listing.avals[number] for number in step.operands]
    results = [listing.avals[number] for number in step.results]
    if not all(map(_is_number, avals)) or (step.name in SUMS and any(map(_may_wrap, results))):
        return [all_of(aval) for aval in results]
    ones = [jnp.asarray(array, aval.dtype) for array, aval in zip(operands, avals, strict=True)]
    return [np.asarray(result) != 0 for result in bind(step.eqn, ones)]


def _is_number(aval: Any) -> bool:
    return jnp.issubdtype(aval.dtype, jnp.number) or aval.dtype == jnp.bool_


def _may_wrap(aval: Any) -> bool:
    """Whether a sum of ones may be 0, as one of 256 is in int8."""
    return jnp.issubdtype(aval.dtype, jnp.integer) and jnp.iinfo(aval.dtype).bits < 32


def _elementwise(step: Step, operands: list[np.ndarray], listing: Listing, shape: Any) -> Any:
    """Entries are 0 where a factor is, or where f(0, …, 0) = 0 and all operands are."""
    spread = [np.broadcast_to(array, shape) for array in operands]
    if step.name in PRODUCTS:
        return np.logical_and.reduce(spread)
    if step.name == "div":
        return spread[0]
    if step.name == "select_n":
        return np.logical_or.reduce(spread[1:])
    numbers = [listing.known.get(number) for number in step.operands]
    fixed = [value is not None and np.size(value) == 1 for value in numbers]
    if not _keeps_zero(
        step, [n if hit else None for n, hit in zip(numbers, fixed, strict=True)], listing
    ):
        return np.ones(shape, bool)
    free = [array for array, hit in zip(spread, fixed, strict=True) if not hit]
    return np.logical_or.reduce([np.zeros(shape, bool), *free])


def _keeps_zero(step: Step, numbers: list[Any], listing: Listing) -> bool:
    """Whether the function is 0 where all is 0 but the constants that it is called with."""
    try:
        args = [
            jnp.zeros((), listing.avals[place].dtype) if number is None else jnp.reshape(number, ())
            for place, number in zip(step.operands, numbers, strict=True)
        ]
        return bool((bind(step.eqn, args)[0] == 0).all())
    except (TypeError, ValueError):  # of keys, tracers or shapes: nothing is known
        return False
