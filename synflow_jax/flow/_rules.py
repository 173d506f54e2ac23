"""The rules of flow mode, a primitive of JAX or a family of them each."""

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from synflow_jax.flow._values import (
    MASKED,
    Kind,
    Value,
    coefficient,
    freeze,
    in_shape,
    known,
    signal,
)
from synflow_jax.flow._walk import Walk
from synflow_jax.jaxpr import bind
from synflow_jax.trees import is_floating


def signals(values: list[Value]) -> list[Value]:
    """Pick what carries flow."""
    return [v for v in values if v.is_signal]


def one_root(eqn: Any, values: list[Value], free: bool = False) -> Any:
    """Find the root of which all signals are functions, the rest being numbers of one size."""
    found = signals(values)
    root = found[0].root
    same = all(v.root is root for v in found) and eqn.outvars[0].aval.shape == root.array.shape
    rest = [v for v in values if not v.is_signal]
    return root if same and (free or all(known(v) is not None for v in rest)) else None


def chain(eqn: Any, values: list[Value], **changes: Any) -> Value:
    """Go on with an elementwise function of one root; without `line` the flow needs a gate."""
    found = signals(values)
    plain = bind(eqn, [freeze(v.raw) if not v.is_signal else v.raw for v in values])[0]
    new = {"line": None, "at": eqn, "maxed": any(v.maxed for v in found), "settled": [], **changes}
    return replace(found[0], plain=plain, **new)


def kind_of(values: list[Value]) -> Kind:
    """Name the kind of a result."""
    return max(v.kind for v in values)


def settled(walk: Walk, values: list[Value]) -> list[Value]:
    """Turn frozen powers into factors."""
    return [walk.settle(v) for v in values]


def elementwise(walk: Walk, eqn: Any, values: list[Value]) -> Any:
    """Keep φ(r) undecided; exp of what lost its maximum is linear (softmax)."""
    name = eqn.primitive.name
    if not signals(values):
        return no_signal(walk, eqn, values)
    if name == "exp" and values[0].shifted:
        walk.note("softmax", eqn, "softmax")
        return replace(signal(walk.flow(values[0]), values[0]), shifted=False)
    if name in ("pow", "integer_pow") and power(eqn, values) < 0:
        return chain(eqn, values, frozen=values[0].reduced > 0)
    if name == "min" and known(values[1]) == np.inf:
        return values[0]
    if name == "abs":
        return chain(eqn, values, line=values[0].line)
    free = name in ("pow", "clamp")
    if one_root(eqn, values, free) is not None:
        return chain(eqn, values)
    if name == "min" and len(signals(values)) == 2:
        return signal(jnp.minimum(*[walk.flow(v) for v in settled(walk, values)]))
    if not is_floating(eqn.outvars[0].aval):
        walk.note("routing", eqn, "comparison")
        return Value(Kind.DISCRETE, freeze(bind(eqn, [v.raw for v in values])[0]))
    return walk.as_is(eqn, values)


def power(eqn: Any, values: list[Value]) -> float:
    """Read the exponent of a power, 1 where it is not known."""
    if eqn.primitive.name == "integer_pow":
        return eqn.params["y"]
    found = known(values[1])
    return 1.0 if found is None else float(found)


def no_signal(walk: Walk, eqn: Any, values: list[Value]) -> Any:
    """Evaluate without a signal; powers below 0 are frozen, one-hots of routed indices known."""
    routed = [v for v in values if v.kind is Kind.ROUTED]
    if eqn.primitive.name == "eq" and len(routed) == 1:
        other = next((v for v in values if v is not routed[0]), routed[0])
        array = bind(eqn, [v.array for v in values])[0]
        if other.kind is Kind.CONSTANT:
            return Value(Kind.ROUTED, array, ways=len(np.unique(np.asarray(other.array))))
    if routed and not is_floating(eqn.outvars[0].aval):
        ways = max(v.ways for v in routed)
        return Value(Kind.ROUTED, bind(eqn, [v.array for v in values])[0], ways=ways)
    if routed:
        return walk.as_is(eqn, values)
    out = walk.plainly(eqn, values)[0]
    below = eqn.primitive.name in ("integer_pow", "pow") and power(eqn, values) < 0
    return replace(out, array=freeze(out.array)) if below and not out.is_signal else out


def rsqrt(walk: Walk, eqn: Any, values: list[Value]) -> Any:
    """Freeze 1/√ of anything: a normaliser is a factor."""
    value = values[0]
    if value.is_signal:
        return chain(eqn, values, frozen=True)
    walk.note("normaliser", eqn)
    return replace(walk.plainly(eqn, values)[0], array=freeze(bind(eqn, [value.array])[0]))


def reshaped(_walk: Walk, eqn: Any, values: list[Value]) -> Any:
    """Bring a signal, its root and its function into another shape alike."""
    value, rest = values[0], [v.array for v in values[1:]]
    if value.is_signal:
        key = (eqn.primitive.name, repr(sorted(eqn.params.items())))
        moved = in_shape(value, key, lambda a: bind(eqn, [a, *rest])[0])
        return replace(moved, at=value.at)
    array = bind(eqn, [value.array, *rest])[0]
    return replace(value, array=array)


def passed_on(_walk: Walk, _eqn: Any, values: list[Value]) -> Any:
    """Pass values on: only where they lie or when they are made changes."""
    return values


def convert(walk: Walk, eqn: Any, values: list[Value]) -> Any:
    """Change the dtype; a routed one-hot in numbers is 1/E everywhere."""
    value, dtype = values[0], eqn.params["new_dtype"]
    number = jnp.issubdtype(dtype, jnp.floating)
    if value.kind is Kind.ROUTED and number:
        if not value.ways:
            return walk.as_is(eqn, values)
        walk.note("routing", eqn, "one-hot")
        return Value(Kind.CONSTANT, jnp.full(value.shape, 1 / value.ways, dtype))
    if not value.is_signal or not is_floating(value.plain):
        return (
            chain(eqn, values)
            if value.is_signal
            else replace(value, array=bind(eqn, [value.array])[0])
        )
    if not number:
        return Value(Kind.ROUTED, bind(eqn, [freeze(walk.flow(walk.settle(value)))])[0])
    return in_shape(value, ("dtype", str(dtype)), lambda a: bind(eqn, [a])[0])


def split(_walk: Walk, eqn: Any, values: list[Value]) -> Any:
    """Cut a signal into pieces, each a root of its own."""
    value = values[0]
    if not value.is_signal:
        return [replace(value, array=a) for a in bind(eqn, [value.array])]
    key = ("split", repr(sorted(eqn.params.items())))
    return [
        in_shape(value, (*key, i), lambda a, i=i: bind(eqn, [a])[i])
        for i in range(len(eqn.outvars))
    ]


def add(walk: Walk, eqn: Any, values: list[Value]) -> Any:
    """Add signals; drop sources and what is subtracted to centre; honour additive masks."""
    a, b = values
    minus = eqn.primitive.name == "sub"
    if minus and a.origin is b.origin and max(a.reduced, b.reduced) > 0:
        walk.note("centring", eqn)
        kept, dropped = (a, b) if b.reduced >= a.reduced else (b, a)
        return replace(kept, shifted=dropped.maxed) if kept.is_signal else kept
    if not signals(values):
        return no_signal(walk, eqn, values)
    if one_root(eqn, values) is not None:
        lines = [v.line for v in values if v.is_signal]
        if len(lines) == 2:
            both = not minus and all(line is not None for line in lines)
            return chain(eqn, values, line=lines[0] + lines[1] if both else None)
        kept, number = (a, known(b)) if a.is_signal else (b, known(a))
        if not kept.frozen and not (minus and b.is_signal):
            offset = eqn if number else kept.offset
            left = eqn if kept.line is not None else kept.at
            return chain(eqn, values, line=kept.line, offset=offset, at=left)
        return chain(eqn, values, line=None if kept.frozen else kept.line)
    a, b = settled(walk, values)
    if a.is_signal and b.is_signal:
        return signal(walk.flow(a) + walk.flow(b))
    if not signals([a, b]):
        return Value(kind_of([a, b]), bind(eqn, [a.array, b.array])[0])
    kept, source = (a, b) if a.is_signal else (b, a)
    return with_source(walk, eqn, kept, source, minus)


def with_source(walk: Walk, eqn: Any, kept: Value, source: Value, minus: bool) -> Value:
    """Drop what is added to a signal, or keep |b|; a summand far below 0 is a mask."""
    flow = walk.flow(kept)
    if source.kind is not Kind.WEIGHT and not minus:
        forbidden = source.array <= MASKED
        if isinstance(forbidden, Tracer) or bool(forbidden.any()):
            walk.note("mask", eqn)
            return signal(jnp.where(forbidden, jnp.zeros_like(flow), flow), kept)
    walk.note("source", eqn)
    if walk.sources and source.kind is Kind.WEIGHT and not minus:
        return signal(flow + coefficient(source.array), kept, count=1)
    return signal(flow, kept)
