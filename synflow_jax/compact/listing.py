"""The equations of a function in a row, those inside of calls among them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Literal

from synflow_jax.scaled.equations import CALLS, CUSTOM, body_of


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
    listing.steps, listing.outputs = _flatten(closed, listing.inputs, listing)
    return listing


def _flatten(
    closed: ClosedJaxpr, operands: list[int], listing: Listing
) -> tuple[list[Step], list[int]]:
    jaxpr = closed.jaxpr
    places = dict(zip(jaxpr.invars, operands, strict=True))
    for var, value in zip(jaxpr.constvars, closed.consts, strict=True):
        places[var] = listing.number(var.aval, value)

    def place(atom: Any) -> int:
        return listing.number(atom.aval, atom.val) if isinstance(atom, Literal) else places[atom]

    steps: list[Step] = []
    for eqn in jaxpr.eqns:
        inside, name = [place(atom) for atom in eqn.invars], eqn.primitive.name
        if name in CALLS - CUSTOM:
            more, results = _flatten(body_of(eqn), inside, listing)
            steps += more
        elif name in CUSTOM:
            body, inner = _flatten(body_of(eqn), inside, listing)
            # A body that hands an operand through still has results of its own.
            results = [listing.number(v.aval) for v in eqn.outvars]
            steps.append(Step(eqn, tuple(inside), tuple(results), tuple(body), tuple(inner)))
        else:
            results = [listing.number(v.aval) for v in eqn.outvars]
            steps.append(Step(eqn, tuple(inside), tuple(results)))
        places |= dict(zip(eqn.outvars, results, strict=True))
    return steps, [place(atom) for atom in jaxpr.outvars]
