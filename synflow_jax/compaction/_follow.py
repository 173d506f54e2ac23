"""Follow units through a function, step by step."""

from collections.abc import Sequence

from synflow_jax.compaction._followed import Followed
from synflow_jax.compaction._primitives import primitive_of
from synflow_jax.compaction._reshape import settle_all
from synflow_jax.compaction._units import WHOLE, Axes
from synflow_jax.jaxpr import Listing, Step


def follow(listing: Listing, inputs: Sequence[Axes], keep_outputs: bool = False) -> Followed:
    """Follow the units of the inputs through every step.

    Args:
      listing: the steps.
      inputs: of each input, the units along each axis.
      keep_outputs: whether every position of the outputs stays.

    Returns:
      The units of every value.
    """
    state = Followed(listing, axes=dict(zip(listing.inputs, inputs, strict=True)))
    largest = [int(ids.max(initial=WHOLE)) for axes in inputs for ids in axes]
    state.units.fresh(max(largest, default=WHOLE))
    _follow_steps(state, listing.steps)
    for number in listing.outputs if keep_outputs else ():
        state.keep_whole(number)
    settle_all(state.products, state.units)
    return state


def _follow_steps(state: Followed, steps: Sequence[Step]) -> None:
    for step in steps:
        if step.inner:  # a function with a derivative of its own: its results are its body's
            _follow_steps(state, step.body)
            results = [state.of(number) for number in step.inner]
        else:
            operands = [state.of(number) for number in step.operands]
            results = primitive_of(step).follow(state, step, operands)
        state.axes.update(zip(step.results, results, strict=True))
