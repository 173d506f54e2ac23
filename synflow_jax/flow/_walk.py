"""Evaluation of a jaxpr in flow mode: one pass over its equations, with a rule a primitive.

Calls (jit, custom derivatives, checkpoint) are inlined; scan and cond are rebuilt around passes
over their bodies. A primitive without a rule is evaluated unchanged and noted.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp
from jax.core import Tracer

from synflow_jax.flow._values import Kind, Value, coefficient, freeze, gate, signal
from synflow_jax.jaxpr import CALLS, bind, body_of, of_library, source_line
from synflow_jax.trees import is_weight

Rule = Callable[["Walk", Any, list[Value]], Any]


@dataclass(frozen=True)
class Note:
    """One change that flow mode made to the network.

    Attributes:
      rule: what breaks homogeneity there, such as "source" or "normaliser".
      operation: the name of the primitive, or of the library function around it.
      where: the user's line, as file:line (function).
    """

    rule: str
    operation: str
    where: str


@dataclass
class Walk:
    """One pass over a jaxpr.

    Attributes:
      rules: the rule of each primitive, by name.
      sources: whether summands are kept as |b| instead of dropped.
      branches: the share of the flow of a branch beside its skip, as `flow_mode` takes it.
      entering: 1 for each floating input and, last, for all lookups by whole numbers: a factor of
        the signal where it begins, by whose derivative its flow is told; None for no factors.
      notes: the changes made so far.
      muted: whether no notes are taken, as while the body of a scan is tried out.
      outer: the call of a library function inside of which the pass is.
    """

    rules: Mapping[str, Rule]
    sources: bool = False
    branches: float | None = None
    entering: Any = None
    notes: list[Note] = field(default_factory=list)
    muted: bool = False
    outer: Any = None

    def note(self, what: str, eqn: Any, operation: str = "") -> None:
        """Add a note on an equation, or on the library call around it."""
        if not self.muted:
            name = self.outer.params.get("name") if self.outer is not None else None
            where = source_line(eqn if self.outer is None else self.outer)
            self.notes.append(Note(what, operation or name or eqn.primitive.name, where))

    def flow(self, value: Value) -> Any:
        """Return the flow of a signal, its line or its root times a gate; else the array."""
        if not value.is_signal:
            return value.array
        if not value.decided:
            if value.line is not None:
                if value.offset is not None:
                    self.note("source", value.offset)
                if value.exponent is not None:
                    self.note("elementwise", value.exponent)
                value.decided.append(value.line)
            else:
                self.note("elementwise", value.at)
                value.decided.append(value.root.array * gate(value.root, value.plain))
        return value.decided[0]

    def begin(self, array: Any, entry: int = -1) -> Value:
        """Begin a signal: at a floating input, given its number, or at a lookup."""
        if self.entering is not None:
            array = array * self.entering[entry].astype(array.dtype)
        return signal(array)

    def as_factor(self, value: Value) -> Value:
        """Turn a frozen signal into a factor: a weight without gradient; others stay unchanged."""
        if not value.frozen:
            return value
        if not value.decided:
            self.note("normaliser", value.at)
            value.decided.append(freeze(value.plain))
        array = value.decided[0]
        return Value(Kind.WEIGHT, array, origin=value.origin, reduced=value.reduced)

    def run(self, jaxpr: Any, consts: Sequence[Value], inputs: Sequence[Value]) -> list[Value]:
        """Evaluate a jaxpr on its constants and inputs."""
        env = dict(zip(jaxpr.constvars, consts, strict=True))
        env.update(zip(jaxpr.invars, inputs, strict=True))
        for eqn in jaxpr.eqns:
            values = [read(env, atom) for atom in eqn.invars]
            with eqn.ctx.manager:  # operations that a rule adds run on the mesh of the equation
                out = self.apply(eqn, values)
            env.update(zip(eqn.outvars, out, strict=True))
        return [read(env, atom) for atom in jaxpr.outvars]

    def run_closed(self, closed: Any, inputs: Sequence[Value]) -> list[Value]:
        """Evaluate a closed jaxpr on its inputs."""
        return self.run(closed.jaxpr, [constant(c) for c in closed.consts], inputs)

    def apply(self, eqn: Any, values: list[Value]) -> list[Value]:
        """Evaluate one equation by the rule of its primitive."""
        name = eqn.primitive.name
        if name not in CALLS and all(v.kind is Kind.CONSTANT for v in values):
            return self.evaluate_constants(eqn, values)
        found = self.rules.get(name)
        if found is not None:
            out = found(self, eqn, values)
        elif any(v.kind >= Kind.ROUTED for v in values):
            out = self.without_rule(eqn, values)
        else:
            out = self.without_signal(eqn, values)
        return out if isinstance(out, list) else [out]

    def evaluate_constants(self, eqn: Any, values: list[Value]) -> list[Value]:
        """Evaluate an equation of constants while tracing, so that rules can read the result."""
        arrays = [v.array for v in values]
        if any(isinstance(a, Tracer) for a in arrays):
            return [Value(Kind.CONSTANT, a) for a in bind(eqn, arrays)]
        with jax.ensure_compile_time_eval():
            return [Value(Kind.CONSTANT, a) for a in bind(eqn, arrays)]

    def without_signal(self, eqn: Any, values: list[Value]) -> list[Value]:
        """Evaluate an equation without a signal; where tokens meet weights, a signal begins."""
        kinds = {v.kind for v in values}
        out = bind(eqn, [v.array for v in values])
        begins = {Kind.WEIGHT, Kind.DISCRETE} <= kinds
        if begins and eqn.primitive.name in BEGINNINGS:
            return [
                self.begin(coefficient(a)) if is_weight(a) else Value(Kind.DISCRETE, a) for a in out
            ]
        lineage = values[0] if len(values) == 1 else Value(Kind.CONSTANT, None)
        return [Value(max(kinds), a, origin=lineage.origin, reduced=lineage.reduced) for a in out]

    def without_rule(self, eqn: Any, values: list[Value]) -> list[Value]:
        """Evaluate an equation unchanged on the flows, and note it if it has results."""
        if eqn.outvars:
            self.note("not recognised", eqn)
        out = bind(eqn, [self.flow(self.as_factor(v)) for v in values])
        return [signal(a) if is_weight(a) else Value(Kind.ROUTED, a) for a in out]


# Primitives that look up or multiply weights by tokens: their results are signals.
BEGINNINGS = {"gather", "dot_general", "mul", "dynamic_slice", "select_n", "conv_general_dilated"}


def constant(array: Any) -> Value:
    """Make a value of a constant of a jaxpr; a traced one is a weight that fn closes over."""
    return Value(Kind.WEIGHT if isinstance(array, Tracer) else Kind.CONSTANT, array)


def read(env: dict[Any, Value], atom: Any) -> Value:
    """Return the value of a variable or a literal."""
    if isinstance(atom, jex.Literal):
        aval: Any = atom.aval
        with jax.ensure_compile_time_eval():
            return Value(Kind.CONSTANT, jnp.asarray(atom.val, aval.dtype))
    return env[atom]


def walk_through(walk: Walk, eqn: Any, values: list[Value]) -> list[Value]:
    """Evaluate the body of a call; notes inside of JAX's own functions are recorded at the call."""
    before, name = walk.outer, eqn.params.get("name") or ""
    if before is None and eqn.primitive.name != "checkpoint" and of_library(name):
        walk.outer = eqn
    try:
        return walk.run_closed(body_of(eqn), values)
    finally:
        walk.outer = before
