"""The rules of flow mode for scan and cond, which are rebuilt around evaluated bodies."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from synflow_jax.flow._values import Kind, Value, signal
from synflow_jax.flow._walk import Walk
from synflow_jax.jaxpr import scan_sizes
from synflow_jax.trees import is_weight


class Signature:
    """What is known of a value besides its array, to take values into a loop and out of it."""

    def __init__(self, value: Value) -> None:
        self.kind, self.count, self.ways = value.kind, value.count, value.ways

    def join(self, other: "Signature") -> "Signature":
        """Combine two signatures of one value: the larger kind, and count 1 if counts differ."""
        joined = Signature(Value(max(self.kind, other.kind), None))
        joined.count = self.count if self.count == other.count else 1
        return joined

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Signature) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]

    def value(self, array: Any) -> Value:
        """Make a value of an array."""
        if self.kind is Kind.SIGNAL and is_weight(array):
            return signal(array, count=self.count)
        return Value(self.kind, array, ways=self.ways)


def split_values(walk: Walk, values: list[Value]) -> tuple[list[Signature], list[Any]]:
    """Split values into their signatures and their arrays, flows in the place of signals."""
    values = [walk.as_factor(v) for v in values]
    return [Signature(v) for v in values], [walk.flow(v) for v in values]


def scan(walk: Walk, eqn: Any, values: list[Value]) -> list[Value]:
    """Rebuild a scan, after finding out which of the carried values are signals."""
    params = eqn.params
    shapes, arrays = split_values(walk, values)
    fixed, carried = scan_sizes(eqn)
    first = fixed + carried
    avals = params["jaxpr"].out_avals
    found: list[Signature] = []
    extra = {name: params[name] for name in ("length", "reverse", "unroll")}

    def run() -> Any:
        # A new function each time: JAX caches the trace of one that it has seen.
        def body(carry: Any, xs: Any) -> Any:
            pairs = zip(shapes, [*arrays[:fixed], *carry, *xs], strict=True)
            out = walk.run_closed(params["jaxpr"], [s.value(a) for s, a in pairs])
            found[:], leaving = split_values(walk, out)
            done = [jnp.asarray(a).astype(b.dtype) for a, b in zip(leaving, avals, strict=True)]
            return done[:carried], done[carried:]

        return jax.lax.scan(body, arrays[fixed:first], arrays[first:], **extra)

    before, walk.muted = walk.muted, True
    stable = False
    while not stable:
        jax.eval_shape(run)
        pairs = zip(shapes[fixed:first], found[:carried], strict=True)
        joined = [a.join(b) for a, b in pairs]
        stable = joined == shapes[fixed:first]
        shapes[fixed:first] = joined
    walk.muted = before
    carry, ys = run()
    kinds = shapes[fixed:first] + found[carried:]
    return [s.value(a) for s, a in zip(kinds, [*carry, *ys], strict=True)]


def cond(walk: Walk, eqn: Any, values: list[Value]) -> list[Value]:
    """Rebuild a conditional; an output is a signal if it is one in any branch."""
    if values[0].kind >= Kind.ROUTED:
        return walk.without_rule(eqn, values)
    branches = eqn.params["branches"]
    shapes, arrays = split_values(walk, values[1:])
    found: list[list[Signature]] = []

    def branch(closed: Any, *inputs: Any) -> Any:
        pairs = zip(shapes, inputs, strict=True)
        kinds, leaving = split_values(walk, walk.run_closed(closed, [s.value(a) for s, a in pairs]))
        found.append(kinds)
        return [a.astype(b.dtype) for a, b in zip(leaving, closed.out_avals, strict=True)]

    out = jax.lax.switch(values[0].array, [partial(branch, b) for b in branches], *arrays)
    kinds = found[0]
    for other in found[1:]:
        kinds = [a.join(b) for a, b in zip(kinds, other, strict=True)]
    return [s.value(a) for s, a in zip(kinds, out, strict=True)]
