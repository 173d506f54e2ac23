"""Which positions along which axes stand for one unit: followed through every equation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from synflow_jax.compaction._reshape import Axes, Product, reshaped, settle_all
from synflow_jax.compaction._units import WHOLE, Units
from synflow_jax.jaxpr import ELEMENTWISE, Listing, Step

SOURCES = frozenset(
    [
        "iota",
        "random_bits",
        "random_wrap",
        "random_unwrap",
        "random_seed",
        "random_fold_in",
        "random_split",
        "random_gamma",
    ]
)
ALONG: dict[str, str] = {
    **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"), "axis"),
    "sort": "dimension",
}


@dataclass
class Followed:
    """The units of every value, and what could not be followed."""

    listing: Listing
    units: Units = field(default_factory=Units)
    axes: dict[int, Axes] = field(default_factory=dict)
    lost: list[Any] = field(default_factory=list)  # equations
    products: list[Product] = field(default_factory=list)

    def of(self, number: int) -> Axes:
        """Give the units of a value; constants get their own at first sight."""
        if number not in self.axes:
            self.axes[number] = tuple(self.units.fresh(n) for n in self.shape(number))
        return self.axes[number]

    def shape(self, number: int) -> tuple[int, ...]:
        """Give the shape of a value."""
        return tuple(getattr(self.listing.avals[number], "shape", ()))

    def whole(self, number: int) -> Axes:
        """Let all of a value stay."""
        for ids in self.of(number):
            self.units.keep_whole(ids)
        return self.of(number)


Rule = Callable[[Followed, Step, Sequence[Axes]], Sequence[Axes]]
RULES: dict[str, Rule] = {}


def follow(listing: Listing, inputs: Sequence[Axes], keep_outputs: bool = False) -> Followed:
    """Follow the units of the inputs through every step; those of the outputs may be to stay."""
    state = Followed(listing, axes=dict(zip(listing.inputs, inputs, strict=True)))
    named = [int(ids.max(initial=WHOLE)) for axes in inputs for ids in axes]
    state.units.fresh(max(named, default=WHOLE))
    _take(state, listing.steps)
    for number in listing.outputs if keep_outputs else ():
        state.whole(number)
    settle_all(state.products, state.units)
    return state


def _take(state: Followed, steps: Sequence[Step]) -> None:
    for step in steps:
        if step.inner:
            _take(state, step.body)
            results = [state.of(number) for number in step.inner]
        else:
            operands = [state.of(number) for number in step.operands]
            results = rule_of(step.name)(state, step, operands)
        state.axes.update(zip(step.results, results, strict=True))


def rule_of(name: str) -> Rule:
    """Find the rule of a primitive; without one, all that it touches stays whole."""
    if name in ELEMENTWISE:
        return _elementwise
    if name in SOURCES:
        return _source
    return RULES.get(name, unknown)


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Enter a function as the rule of these primitives."""

    def enter(fn: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, fn))
        return fn

    return enter


def zeros(size: int) -> np.ndarray:
    """Name an axis of which every position stays."""
    return np.full(size, WHOLE)


def unknown(state: Followed, step: Step, operands: Sequence[Axes]) -> list[Axes]:
    """Let all that an operation touches stay, and note it."""
    state.lost.append(step.eqn)
    for number in step.operands:
        state.whole(number)
    return [tuple(map(zeros, state.shape(number))) for number in step.results]


def _source(state: Followed, step: Step, operands: Sequence[Axes]) -> list[Axes]:
    for number in step.operands:
        state.whole(number)
    return [tuple(map(state.units.fresh, state.shape(number))) for number in step.results]


def _elementwise(state: Followed, step: Step, operands: Sequence[Axes]) -> list[Axes]:
    """Join the axes of all operands; one of size 1 is spread along that of the others."""
    found = []
    for axis, size in enumerate(state.shape(step.results[0])):
        there = [axes[axis] for axes in operands if axes]
        alike = [ids for ids in there if len(ids) == size]
        for ids in there:
            if len(ids) != size:
                state.units.keep_whole(ids)  # no sum is over it, but all that it meets reads it
        for other in alike[1:]:
            state.units.join(alike[0], other)
        found.append(alike[0])
    return [tuple(found)]


@rule("optimization_barrier", "device_put")
def _each(state: Followed, step: Step, operands: Sequence[Axes]) -> Sequence[Axes]:
    return operands


@rule("bitcast_convert_type")
def _bitcast(state: Followed, step: Step, operands: Sequence[Axes]) -> Sequence[Axes]:
    """Let entries of one size pass, as random numbers are made; others are cut or merged."""
    alike = state.shape(step.operands[0]) == state.shape(step.results[0])
    return operands if alike else unknown(state, step, operands)


@rule(*ALONG)
def _along(state: Followed, step: Step, operands: Sequence[Axes]) -> list[Axes]:
    axis = step.eqn.params[ALONG[step.name]]
    for axes in operands:
        state.units.keep_whole(axes[axis])
        for a, b in zip(operands[0], axes, strict=True):
            state.units.join(a, b)
    return [operands[0]] * len(step.results)


@rule("rev")
def _rev(state: Followed, step: Step, operands: Sequence[Axes]) -> list[Axes]:
    turned = step.eqn.params["dimensions"]
    return [tuple(ids[::-1] if k in turned else ids for k, ids in enumerate(operands[0]))]


@rule("broadcast_in_dim")
def _broadcast(state: Followed, step: Step, operands: Sequence[Axes]) -> list[Axes]:
    shape = state.shape(step.results[0])
    found = [state.units.fresh(size) for size in shape]
    for ids, place in zip(operands[0], step.eqn.params["broadcast_dimensions"], strict=True):
        if len(ids) == shape[place]:
            found[place] = ids
        else:
            state.units.keep_whole(ids)
    return [tuple(found)]


@rule("reshape")
def _reshape(state: Followed, step: Step, operands: Sequence[Axes]) -> Sequence[Axes]:
    if step.eqn.params.get("dimensions") is not None:
        return unknown(state, step, operands)
    axes, products = reshaped(operands[0], state.shape(step.results[0]), state.units)
    state.products += products
    return [axes]
