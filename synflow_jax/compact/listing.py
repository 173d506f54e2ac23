"""The equations of a function in a row, those inside of calls among them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from synflow_jax.scaled import equations

Entries = dict[int, np.ndarray]  # of values by number: a bool array for each


@dataclass(frozen=True)
class Step:
    """An equation whose operands and results are numbered across all calls.

    One with a derivative of its own has the steps of its body (none, if it hands its operands
    through), which end in the numbers `inner`.
    """

    eqn: Any
    operands: tuple[int, ...]
    results: tuple[int, ...]
    body: tuple["Step", ...] = ()
    inner: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """The name of the primitive."""
        return self.eqn.primitive.name


@dataclass
class Listing:
    """Steps, and what their numbers stand for."""

    avals: list[Any] = field(default_factory=list)
    known: dict[int, Any] = field(default_factory=dict)  # constants
    steps: list[Step] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    out_tree: Any = None

    def number(self, aval: Any, value: Any = None) -> int:
        """Number a value."""
        self.avals.append(aval)
        if value is not None:
            self.known[len(self.avals) - 1] = value
        return len(self.avals) - 1

    def every_step(self) -> list[Step]:
        """List the steps, with bodies in the place of what has one."""
        return _opened(self.steps)


def _opened(steps: list[Step]) -> list[Step]:
    return [one for step in steps for one in (_opened(list(step.body)) if step.inner else [step])]


def used(listing: Listing) -> set[int]:
    """Find the numbers that some output depends on."""
    found = set(listing.outputs)
    for step in reversed(listing.steps):
        if found.intersection(step.results):
            found.update(step.operands)
    return found


def listed(fn: Callable[..., Any], *args: Any) -> Listing:
    """Trace a function on arrays or their shapes, and list what it does."""
    closed, out = jax.make_jaxpr(fn, return_shape=True)(*args)
    listing = Listing(out_tree=jax.tree.structure(out))
    listing.inputs = [listing.number(v.aval) for v in closed.jaxpr.invars]
    steps, listing.outputs = equations.flatten(closed, listing.inputs, listing.number)
    listing.steps = [_with_body(step, listing) for step in steps]
    return listing


def _with_body(step: equations.Step, listing: Listing) -> Step:
    """List the body of a function that has a derivative of its own."""
    if step.eqn.primitive.name not in equations.CUSTOM:
        return Step(*step)
    closed = equations.body_of(step.eqn)
    body, inner = equations.flatten(closed, list(step.operands), listing.number)
    # A body that hands an operand through still has results of its own.
    return Step(*step, tuple(_with_body(one, listing) for one in body), tuple(inner))
