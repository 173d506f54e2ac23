"""One pass over a jaxpr that follows leaves, and notes what breaks homogeneity.

Calls, loops and branches are entered. Nothing is evaluated: the pass sees types and the few
constants that decide a comparison.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax.extend.core as jex

from synflow_jax.jaxpr import CALLS, ELEMENTWISE, body_of, of_library, source_line
from synflow_jax.structure._marks import NONE, Axes, Kind, Mark, Part, join, mark_of_constant
from synflow_jax.trees import is_weight

Rule = Callable[["Walk", Any, list[Mark]], Mark | list[Mark]]


@dataclass
class Found:
    """What a pass has found out about one leaf.

    Attributes:
      roles: how the leaf was met: "kernel", "table", "added", "scale", or "summand", which is added
        as well, but in a product of leaves or as a statistic of itself.
      layers: its axes of layers, () if it has none.
      sides: its axes of inputs and of outputs where it was first contracted.
      looked_up: its axes of rows, along which it was looked up, and the others.
      sums: its axes that were summed over there.
      order: how many leaves met a signal before it; None if it met none.
      where: the line where it did.
      bent: whether it met one behind exp or its kind, or with a constant added.
    """

    roles: set[str] = field(default_factory=set)
    layers: tuple[int, ...] = ()
    sides: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    looked_up: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    sums: tuple[int, ...] = ()
    order: int | None = None
    where: str = ""
    bent: bool = False


@dataclass
class Noted:
    """A place where homogeneity breaks, and the bits of the leaves behind it."""

    breaks: str
    operation: str
    where: str
    leaves: int
    of_weights: bool


@dataclass
class Walk:
    """One pass.

    Attributes:
      rules: the rule of each primitive, by name.
      ranks: number of axes of each leaf.
      found: what is known of each leaf.
      notes: the breaks of homogeneity, by key; their order gives their bits.
      outer: the call of a library function inside of which the pass is.
      calls: all calls inside of which it is, from the outside to the inside.
      met: how many leaves have met a signal.
      first: the leaves that multiply a value behind which no kernel lies.
      lookups: the leaves that an equation looks up, by its identity.
      trying: whether the body of a loop is tried out, with marks that may still change: leaves then
        meet nothing.
    """

    rules: Mapping[str, Rule]
    ranks: Sequence[int]
    found: list[Found]
    notes: dict[tuple[str, str, str], Noted] = field(default_factory=dict)
    outer: Any = None
    calls: list[Any] = field(default_factory=list)
    met: int = 0
    first: set[int] = field(default_factory=set)
    lookups: dict[int, set[int]] = field(default_factory=dict)
    trying: bool = False

    def run(self, jaxpr: Any, consts: Sequence[Mark], inputs: Sequence[Mark]) -> list[Mark]:
        """Follow a jaxpr on the marks of its constants and inputs."""
        env = dict(zip(jaxpr.constvars, consts, strict=True))
        env.update(zip(jaxpr.invars, inputs, strict=True))
        for eqn in jaxpr.eqns:
            marks = [_read(env, atom) for atom in eqn.invars]
            env.update(zip(eqn.outvars, self.apply(eqn, marks), strict=True))
        return [_read(env, atom) for atom in jaxpr.outvars]

    def run_closed(self, closed: Any, inputs: Sequence[Mark]) -> list[Mark]:
        """Follow a closed jaxpr on the marks of its inputs."""
        return self.run(closed.jaxpr, [mark_of_constant(c) for c in closed.consts], inputs)

    def apply(self, eqn: Any, marks: list[Mark]) -> list[Mark]:
        """Describe the results of one equation."""
        name = eqn.primitive.name
        if name in CALLS:
            return self._enter(eqn, marks)
        rule = self.rules.get(name)
        if name in ELEMENTWISE:
            marks = [_spread(*pair, eqn) for pair in zip(marks, eqn.invars, strict=True)]
        out = self._unknown(eqn, marks) if rule is None else rule(self, eqn, marks)
        return out if isinstance(out, list) else [out] * len(eqn.outvars)

    def _unknown(self, eqn: Any, marks: list[Mark]) -> list[Mark]:
        """Join what the operands depend on, and note that floating results are not understood."""
        out = join(marks)
        kinds = [is_weight(var.aval) for var in eqn.outvars]
        bit = 0
        if any(kinds):
            bit = self.note("unknown", eqn, out.leaves, of_weights=out.kind is Kind.WEIGHT)
        whole = replace(out, kind=Kind.ROUTED if out.is_signal else out.kind)
        some = replace(out, breaks=out.breaks | bit)
        return [some if floating else whole for floating in kinds]

    def _enter(self, eqn: Any, marks: list[Mark]) -> list[Mark]:
        """Follow the body of a call; breaks inside of JAX's own functions are noted at the call."""
        before, name = self.outer, eqn.params.get("name") or ""
        if before is None and eqn.primitive.name != "checkpoint" and of_library(name):
            self.outer = eqn
        self.calls.append(eqn)
        try:
            return self.run_closed(body_of(eqn), marks)
        finally:
            self.outer = before
            self.calls.pop()

    def line(self, eqn: Any) -> str:
        """Find the user's line of an equation, or of the innermost call around it that has one."""
        at = eqn if self.outer is None else self.outer
        lines = map(source_line, (at, eqn, *reversed(self.calls)))
        return next((line for line in lines if line), "")

    def note(self, breaks: str, eqn: Any, leaves: int, of_weights: bool = False) -> int:
        """Note a break of homogeneity in these leaves; return its bit, 0 without leaves."""
        if not leaves:
            return 0
        at = eqn if self.outer is None else self.outer
        operation = at.params.get("name") if at is self.outer else None
        key = (breaks, operation or eqn.primitive.name, self.line(eqn))
        noted = self.notes.setdefault(key, Noted(*key, 0, of_weights))
        noted.leaves |= leaves
        return 1 << list(self.notes).index(key)

    def meet(self, leaf: int, part: Part, role: str, eqn: Any, *sides: Axes) -> None:
        """Note that a leaf meets a signal: its role, its layers, and the axes of its sides.

        The sides are the axes of inputs, of outputs and, where a product does not sum over all of
        the inputs that are no outputs, those that it does sum over.
        """
        if self.trying:
            return
        found = self.found[leaf]
        if found.order is None:
            found.order, self.met = self.met, self.met + 1
            found.where = self.line(eqn)
        found.roles.add(role)
        found.bent |= part.bent
        found.layers = part.layers or found.layers
        if role in ("kernel", "table"):
            inputs, outputs, *sums = (tuple(sorted(side)) for side in sides)
            if role == "table":
                found.looked_up = found.looked_up or (inputs, outputs)
            elif found.sides is None:
                found.sides = inputs, outputs
                found.sums = sums[0] if sums else tuple(k for k in inputs if k not in outputs)

    def look_up(self, leaves: Iterable[int], eqn: Any) -> None:
        """Note that an equation looks up leaves."""
        self.lookups.setdefault(id(eqn), set()).update(leaves)

    def meet_all(self, mark: Mark, role: str, eqn: Any) -> None:
        """Note that all leaves inside a value meet a signal in one role."""
        for leaf, part in mark.parts.items():
            within = role == "added" and (part.summed or part.reduced)
            self.meet(leaf, part, "summand" if within else role, eqn, NONE, NONE)


def _read(env: dict[Any, Mark], atom: Any) -> Mark:
    return mark_of_constant(atom.val) if isinstance(atom, jex.Literal) else env[atom]


def _spread(mark: Mark, atom: Any, eqn: Any) -> Mark:
    """Drop the leaf from axes of length 1 along which an elementwise function repeats it."""
    before, after = (getattr(v.aval, "shape", ()) for v in (atom, eqn.outvars[0]))
    if not mark.parts or before == after:
        return mark
    if len(before) != len(after):  # a scalar
        blank = {leaf: replace(p, axes=(NONE,) * len(after)) for leaf, p in mark.parts.items()}
        return replace(mark, parts=blank)
    kept = [a == b for a, b in zip(before, after, strict=True)]
    parts = {
        leaf: replace(
            part, axes=tuple(a if k else NONE for a, k in zip(part.axes, kept, strict=True))
        )
        for leaf, part in mark.parts.items()
    }
    return replace(mark, parts=parts)


def input_mark(leaf: Any) -> Mark:
    """Describe an input of the network, which is ones."""
    return Mark(Kind.SIGNAL, positive=True) if is_weight(leaf) else Mark(Kind.INDEX)


def leaf_mark(number: int, leaf: Any) -> Mark:
    """Describe a leaf of the params, of which the network is given the absolute value."""
    axes = tuple(frozenset((axis,)) for axis in range(leaf.ndim))
    bit = 1 << number
    return Mark(
        Kind.WEIGHT,
        {number: Part(axes)},
        leaves=bit,
        attached=bit,
        needed=bit,
        positive=True,
    )
