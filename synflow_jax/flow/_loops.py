"""The rules of flow mode for scan and cond, which are rebuilt around evaluated bodies."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from synflow_jax.flow._values import Kind, Value, all_behind, signal
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

    def value(self, array: Any, terms: Any, **known: Any) -> Value:
        """Make a value of an array, of its number of terms and, if known, origin and behind."""
        if self.kind is Kind.SIGNAL and is_weight(array):
            return signal(array, count=self.count, terms=terms, **known)
        return Value(self.kind, array, ways=self.ways)


Split = tuple[list[Signature], list[Any], list[Any]]


def split_values(walk: Walk, values: list[Value]) -> Split:
    """Split values into signatures, arrays (flows in the place of signals), numbers of terms."""
    values = [walk.as_factor(v) for v in values]
    terms = [v.terms if v.is_signal else 0.0 for v in values]  # a state of zeros is no term
    return [Signature(v) for v in values], [walk.flow(v) for v in values], terms


def lineage(values: list[Value]) -> list[dict[str, Any]]:
    """Return origin and behind of each value, with which it enters the body of a loop or branch."""
    return [{"origin": v.origin, "behind": v.behind} for v in values]


def ancestors(values: list[Value]) -> dict[str, Any]:
    """Return what lies behind a result of a loop or branch: all signals that enter it."""
    return {"behind": all_behind(*(v for v in values if v.is_signal))}


def as_scalars(terms: list[Any]) -> list[Any]:
    """Turn numbers of terms into arrays, which a loop can carry."""
    return [jnp.asarray(one, jnp.float32) for one in terms]


def scan(walk: Walk, eqn: Any, values: list[Value]) -> list[Value]:
    """Rebuild a scan, after finding out which of the carried values are signals."""
    params = eqn.params
    shapes, arrays, terms = split_values(walk, values)
    fixed, carried = scan_sizes(eqn)
    first, behind = fixed + carried, ancestors(values)
    rows = [{"behind": all_behind(v)} for v in values[first:]]  # not the origin: each is another
    known = [*lineage(values[:fixed]), *[behind] * carried, *rows]
    avals = params["jaxpr"].out_avals
    found: list[Signature] = []
    extra = {name: params[name] for name in ("length", "reverse", "unroll")}

    def run() -> Any:
        # A new function each time: JAX caches the trace of one that it has seen.
        def body(carry: Any, xs: Any) -> Any:
            inside, sums = carry
            each = [*terms[:fixed], *sums, *terms[first:]]
            entering = zip(shapes, [*arrays[:fixed], *inside, *xs], each, known, strict=True)
            out = walk.run_closed(params["jaxpr"], [s.value(a, n, **k) for s, a, n, k in entering])
            found[:], leaving, ends = split_values(walk, out)
            done = [jnp.asarray(a).astype(b.dtype) for a, b in zip(leaving, avals, strict=True)]
            return (done[:carried], as_scalars(ends[:carried])), done[carried:]

        start = arrays[fixed:first], as_scalars(terms[fixed:first])
        return jax.lax.scan(body, start, arrays[first:], **extra)

    before, walk.muted = walk.muted, True
    stable = False
    while not stable:
        jax.eval_shape(run)
        pairs = zip(shapes[fixed:first], found[:carried], strict=True)
        joined = [a.join(b) for a, b in pairs]
        stable = joined == shapes[fixed:first]
        shapes[fixed:first] = joined
    walk.muted = before
    (carry, sums), ys = run()
    kinds = shapes[fixed:first] + found[carried:]
    trios = zip(kinds, [*carry, *ys], [*sums, *[1.0] * len(ys)], strict=True)
    return [s.value(a, n, **behind) for s, a, n in trios]


def cond(walk: Walk, eqn: Any, values: list[Value]) -> list[Value]:
    """Rebuild a conditional; an output is a signal if it is one in any branch."""
    if values[0].kind >= Kind.ROUTED:
        return walk.without_rule(eqn, values)
    branches = eqn.params["branches"]
    shapes, arrays, terms = split_values(walk, values[1:])
    found: list[list[Signature]] = []

    def branch(closed: Any, *inputs: Any) -> Any:
        entering = zip(shapes, inputs, terms, lineage(values[1:]), strict=True)
        out = walk.run_closed(closed, [s.value(a, n, **k) for s, a, n, k in entering])
        kinds, leaving, ends = split_values(walk, out)
        found.append(kinds)
        done = [a.astype(b.dtype) for a, b in zip(leaving, closed.out_avals, strict=True)]
        return done, as_scalars(ends)

    out, sums = jax.lax.switch(values[0].array, [partial(branch, b) for b in branches], *arrays)
    kinds = found[0]
    for other in found[1:]:
        kinds = [a.join(b) for a, b in zip(kinds, other, strict=True)]
    behind = ancestors(values[1:])
    return [s.value(a, n, **behind) for s, a, n in zip(kinds, out, sums, strict=True)]
