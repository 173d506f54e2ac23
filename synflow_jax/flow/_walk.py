"""Evaluation of a jaxpr in flow mode: one pass over its equations, each by the rule of its name.

Calls (jit, custom derivatives, checkpoint) are walked through; scan and cond are rebuilt around
walks of their bodies. What has no rule is evaluated as it is, and named.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp
from jax.core import Tracer
from jax.extend import source_info_util

from synflow_jax.flow._values import Kind, Value, coefficient, freeze, gate, signal
from synflow_jax.jaxpr import CALLS, bind, body_of
from synflow_jax.trees import is_floating, is_library

Rule = Callable[["Walk", Any, list[Value]], Any]


@dataclass(frozen=True)
class Note:
    """One thing that flow mode did, where the user's source says so."""

    rule: str
    operation: str
    where: str


def source_line(eqn: Any) -> str:
    """Write where the user's source made an equation, as file:line (function)."""
    frames = getattr(getattr(eqn.source_info, "traceback", None), "frames", ())
    for frame in frames:
        if not is_library(frame.file_name):
            return f"{frame.file_name}:{frame.line_num} ({frame.function_name})"
    return source_info_util.summarize(eqn.source_info)


def of_library(name: str) -> bool:
    """Whether a jitted function is JAX's own, whose inner places say nothing of the user's."""
    return name.startswith("_") or any(hasattr(room, name) for room in (jax.nn, jnp))


@dataclass
class Walk:
    """One pass over a jaxpr: what it was told, and what it noted."""

    rules: Mapping[str, Rule]
    sources: bool = False
    notes: list[Note] = field(default_factory=list)
    muted: bool = False
    outer: Any = None  # the call of a library function that is being walked through

    def note(self, what: str, eqn: Any, operation: str = "") -> None:
        """Note what was done, once an equation and place."""
        if not self.muted:
            name = self.outer.params.get("name") if self.outer is not None else None
            where = source_line(eqn if self.outer is None else self.outer)
            self.notes.append(Note(what, operation or name or eqn.primitive.name, where))

    def flow(self, value: Value) -> Any:
        """Decide a signal: its line, or its root times the frozen gate; other arrays are as is."""
        if not value.is_signal:
            return value.array
        if not value.settled:
            if value.line is not None:
                if value.offset is not None:
                    self.note("source", value.offset)
                value.settled.append(value.line)
            else:
                self.note("elementwise", value.at)
                value.settled.append(value.root.array * gate(value.root, value.plain))
        return value.settled[0]

    def settle(self, value: Value) -> Value:
        """Turn a frozen power of a signal into the factor that it is."""
        if not value.frozen:
            return value
        if not value.settled:
            self.note("normaliser", value.at)
            value.settled.append(freeze(value.plain))
        array = value.settled[0]
        return Value(Kind.WEIGHT, array, origin=value.origin, reduced=value.reduced)

    def run(self, jaxpr: Any, consts: Sequence[Value], inputs: Sequence[Value]) -> list[Value]:
        """Evaluate an open jaxpr."""
        env = dict(zip(jaxpr.constvars, consts, strict=True))
        env.update(zip(jaxpr.invars, inputs, strict=True))
        for eqn in jaxpr.eqns:
            values = [read(env, atom) for atom in eqn.invars]
            with eqn.ctx.manager:  # what rules add to an operation is where it is, on a mesh too
                out = self.apply(eqn, values)
            env.update(zip(eqn.outvars, out, strict=True))
        return [read(env, atom) for atom in jaxpr.outvars]

    def run_closed(self, closed: Any, inputs: Sequence[Value]) -> list[Value]:
        """Evaluate a closed jaxpr; its constants are known where they are no tracers."""
        return self.run(closed.jaxpr, [constant(c) for c in closed.consts], inputs)

    def apply(self, eqn: Any, values: list[Value]) -> list[Value]:
        """Evaluate one equation."""
        name = eqn.primitive.name
        if name not in CALLS and all(v.kind is Kind.CONSTANT for v in values):
            return self.known(eqn, values)
        found = self.rules.get(name)
        if found is not None:
            out = found(self, eqn, values)
        elif any(v.kind >= Kind.ROUTED for v in values):
            out = self.as_is(eqn, values)
        else:
            out = self.plainly(eqn, values)
        return out if isinstance(out, list) else [out]

    def known(self, eqn: Any, values: list[Value]) -> list[Value]:
        """Evaluate constants while tracing, so that rules can look at them."""
        arrays = [v.array for v in values]
        if any(isinstance(a, Tracer) for a in arrays):
            return [Value(Kind.CONSTANT, a) for a in bind(eqn, arrays)]
        with jax.ensure_compile_time_eval():
            return [Value(Kind.CONSTANT, a) for a in bind(eqn, arrays)]

    def plainly(self, eqn: Any, values: list[Value]) -> list[Value]:
        """Evaluate what carries no signal; where tokens meet weights, a signal begins."""
        kinds = {v.kind for v in values}
        out = bind(eqn, [v.array for v in values])
        begins = {Kind.WEIGHT, Kind.DISCRETE} <= kinds
        if begins and eqn.primitive.name in BEGINNINGS:
            return [
                signal(coefficient(a)) if is_floating(a) else Value(Kind.DISCRETE, a) for a in out
            ]
        lineage = values[0] if len(values) == 1 else Value(Kind.CONSTANT, None)
        return [Value(max(kinds), a, origin=lineage.origin, reduced=lineage.reduced) for a in out]

    def as_is(self, eqn: Any, values: list[Value]) -> list[Value]:
        """Evaluate what has no rule, and name it, unless it prints or calls back: no result."""
        if eqn.outvars:
            self.note("not recognised", eqn)
        out = bind(eqn, [self.flow(self.settle(v)) for v in values])
        return [signal(a) if is_floating(a) else Value(Kind.ROUTED, a) for a in out]


BEGINNINGS = {"gather", "dot_general", "mul", "dynamic_slice", "select_n", "conv_general_dilated"}


def constant(array: Any) -> Value:
    """Read a constant of a jaxpr; one that is traced is a weight that the function holds."""
    return Value(Kind.WEIGHT if isinstance(array, Tracer) else Kind.CONSTANT, array)


def read(env: dict[Any, Value], atom: Any) -> Value:
    """Look a variable up, or make a value of a literal."""
    if isinstance(atom, jex.Literal):
        aval: Any = atom.aval
        with jax.ensure_compile_time_eval():
            return Value(Kind.CONSTANT, jnp.asarray(atom.val, aval.dtype))
    return env[atom]


def walk_through(walk: Walk, eqn: Any, values: list[Value]) -> list[Value]:
    """Walk through a call; inside a function of JAX's own the place is that of the call."""
    before, name = walk.outer, eqn.params.get("name") or ""
    if before is None and eqn.primitive.name != "checkpoint" and of_library(name):
        walk.outer = eqn
    try:
        return walk.run_closed(body_of(eqn), values)
    finally:
        walk.outer = before
