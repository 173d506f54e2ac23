"""The rules of flow mode for elementwise functions, changes of shape, and sums.

A rule maps (walk, equation, operands) to a value or a list of values.
"""

import math
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from synflow_jax.flow._shares import add_in_shares, largest
from synflow_jax.flow._values import (
    Kind,
    Value,
    all_behind,
    carried,
    coefficient,
    freeze,
    gate,
    in_shape,
    signal,
    uniform_value,
)
from synflow_jax.flow._walk import Walk
from synflow_jax.jaxpr import bind
from synflow_jax.structure import MASKED
from synflow_jax.trees import is_weight


def signals(values: list[Value]) -> list[Value]:
    """List the values that are signals."""
    return [v for v in values if v.is_signal]


def one_root(eqn: Any, values: list[Value], free: bool = False) -> Any:
    """Return the root that all signals share; None if there are several.

    The other operands must be constants with one number each, unless `free`.
    """
    found = signals(values)
    root = found[0].root
    same = all(v.root is root for v in found) and eqn.outvars[0].aval.shape == root.array.shape
    rest = [v for v in values if not v.is_signal]
    return root if same and (free or all(uniform_value(v) is not None for v in rest)) else None


def chain(eqn: Any, values: list[Value], **changes: Any) -> Value:
    """Return a further elementwise function of the one root; without a `line` it needs a gate."""
    found = signals(values)
    plain = bind(eqn, [freeze(v.raw) if not v.is_signal else v.raw for v in values])[0]
    new = {"line": None, "at": eqn, "maxed": any(v.maxed for v in found), "decided": [], **changes}
    return replace(found[0], plain=plain, **new)


def kind_of(values: list[Value]) -> Kind:
    """Return the kind of a result."""
    return max(v.kind for v in values)


def as_factors(walk: Walk, values: list[Value]) -> list[Value]:
    """Turn the frozen signals among the values into factors."""
    return [walk.as_factor(v) for v in values]


def elementwise(walk: Walk, eqn: Any, values: list[Value]) -> Any:
    """Apply an elementwise function to a signal; where exp begins a softmax, exp(l) is l.

    Elsewhere the flow l has lost the sign of the exponent, which mostly is that of a decay, and exp
    of the flow has no bound: the gate 1/(1 + l), of a decay that never is 0, stands in.
    """
    name = eqn.primitive.name
    if not signals(values):
        return elementwise_without_signal(walk, eqn, values)
    if name == "exp" and values[0].shifted:
        walk.note("softmax", eqn, "softmax")
        return replace(signal(walk.flow(values[0]), values[0]), shifted=False)
    if name in ("exp", "exp2") and values[0].plain is values[0].root.safe:
        root = values[0].root
        decay = root.array * gate(root, 1 / (1 + jnp.abs(root.safe)))
        return chain(eqn, values, line=decay, exponent=eqn)
    if name in ("pow", "integer_pow") and power(eqn, values) < 0:
        return chain(eqn, values, frozen=values[0].reduced > 0)
    if name == "min" and uniform_value(values[1]) == np.inf:
        return values[0]
    if name == "abs" and jnp.iscomplexobj(values[0].raw):
        return part(walk, eqn, values)
    if name == "abs":
        return chain(eqn, values, line=values[0].line)
    free = name in ("pow", "clamp")
    if one_root(eqn, values, free) is not None:
        return chain(eqn, values)
    if name == "min" and len(signals(values)) == 2:
        both = as_factors(walk, values)
        return signal(jnp.minimum(*map(walk.flow, both)), behind=all_behind(*signals(both)))
    if not is_weight(eqn.outvars[0].aval):
        walk.note("routing", eqn, "comparison")
        return Value(Kind.DISCRETE, freeze(bind(eqn, [v.raw for v in values])[0]))
    return walk.without_rule(eqn, values)


def part(walk: Walk, eqn: Any, values: list[Value]) -> Any:
    """Take the real or imaginary part of z, or |z|: each may be as large as |z|, its flow."""
    value = walk.as_factor(values[0])
    if value.is_signal:
        return signal(jnp.real(walk.flow(value)), value)
    if value.kind is Kind.WEIGHT:  # enters as |w| + 0i, of which the imaginary part says nothing
        return replace(value, array=jnp.real(coefficient(value.array)))
    return walk.without_signal(eqn, [value])[0]


def joined(walk: Walk, eqn: Any, values: list[Value]) -> Any:
    """Join x and y to x + iy, whose flow is that of x + y."""
    values = as_factors(walk, values)
    if not signals(values):
        return walk.without_signal(eqn, values)[0]
    flow: Any = sum(walk.flow(v) for v in signals(values))
    if len(signals(values)) == 1 and any(v.kind is Kind.WEIGHT for v in values):
        walk.note("source", eqn)
    behind = all_behind(*signals(values))
    return signal(flow.astype(eqn.outvars[0].aval.dtype), behind=behind)


def fourier(walk: Walk, eqn: Any, values: list[Value]) -> Any:
    """Transform by the moduli of the entries of the Fourier matrix, which are all one number.

    Forward each is 1, so that every frequency is the sum over places; inverse each is 1/N. The
    inverse to real numbers reads half of the spectrum: all frequencies but 0 and N/2 count twice.
    """
    value = walk.as_factor(values[0])
    if value.is_signal:
        walk.note("transform", eqn)
    array = walk.flow(value) if value.is_signal else coefficient(value.array)
    lengths, out = eqn.params["fft_lengths"], eqn.outvars[0].aval
    kind = lax.FftType(eqn.params["fft_type"])
    if kind in (lax.FftType.IFFT, lax.FftType.IRFFT):
        array = array / math.prod(lengths)
    if kind is lax.FftType.IRFFT:
        at = np.arange(array.shape[-1])
        twice = 2.0 - ((at == 0) | (2 * at == lengths[-1]))
        array = jnp.real(array) * jnp.asarray(twice, out.dtype).reshape(
            (1,) * (array.ndim - 1) + (-1,)
        )
    axes = tuple(range(array.ndim - len(lengths), array.ndim))
    total = jnp.sum(array, axes, keepdims=True).astype(out.dtype)
    spread = jnp.broadcast_to(total, out.shape)
    return signal(spread, **carried(value)) if value.is_signal else replace(value, array=spread)


def power(eqn: Any, values: list[Value]) -> float:
    """Return the exponent of a power, 1 if it is not a known constant."""
    if eqn.primitive.name == "integer_pow":
        return eqn.params["y"]
    found = uniform_value(values[1])
    return 1.0 if found is None else float(found)


def elementwise_without_signal(walk: Walk, eqn: Any, values: list[Value]) -> Any:
    """Apply an elementwise function without a signal.

    Negative powers are frozen. A comparison of routed indices with constants is a one-hot of as
    many ways as there are different constants.
    """
    routed = [v for v in values if v.kind is Kind.ROUTED]
    if eqn.primitive.name == "eq" and len(routed) == 1:
        other = next((v for v in values if v is not routed[0]), routed[0])
        array = bind(eqn, [v.array for v in values])[0]
        if other.kind is Kind.CONSTANT:
            return Value(Kind.ROUTED, array, ways=len(np.unique(np.asarray(other.array))))
    if routed and not is_weight(eqn.outvars[0].aval):
        ways = max(v.ways for v in routed)
        return Value(Kind.ROUTED, bind(eqn, [v.array for v in values])[0], ways=ways)
    if routed:
        return walk.without_rule(eqn, values)
    out = walk.without_signal(eqn, values)[0]
    below = eqn.primitive.name in ("integer_pow", "pow") and power(eqn, values) < 0
    return replace(out, array=freeze(out.array)) if below and not out.is_signal else out


def rsqrt(walk: Walk, eqn: Any, values: list[Value]) -> Any:
    """Take 1/√x as a frozen factor, a normaliser."""
    value = values[0]
    if value.is_signal:
        return chain(eqn, values, frozen=True)
    walk.note("normaliser", eqn)
    return replace(walk.without_signal(eqn, values)[0], array=freeze(bind(eqn, [value.array])[0]))


def reshaped(_walk: Walk, eqn: Any, values: list[Value]) -> Any:
    """Change the shape of a value, of a signal with its root."""
    value, rest = values[0], [v.array for v in values[1:]]
    if value.is_signal:
        key = (eqn.primitive.name, repr(sorted(eqn.params.items())))
        moved = in_shape(value, key, lambda a: bind(eqn, [a, *rest])[0])
        return replace(moved, at=value.at)
    array = bind(eqn, [value.array, *rest])[0]
    return replace(value, array=array)


def stopped(walk: Walk, eqn: Any, values: list[Value]) -> Any:
    """Take a signal without gradient as a factor: where it is added, it is a source.

    No gradient passes, so that a share of the flow would reach no weight. In x + sg(q − x), as
    quantisers have it, the flow is that of x.
    """
    value = walk.as_factor(values[0])
    if not value.is_signal or not is_weight(value.plain):
        return reshaped(walk, eqn, [value])
    kept = {name: getattr(value, name) for name in ("origin", "reduced", "maxed")}
    return Value(Kind.WEIGHT, freeze(value.plain), **kept)


def passed_on(_walk: Walk, _eqn: Any, values: list[Value]) -> Any:
    """Return the operands: the primitive changes only their device or the order of evaluation."""
    return values


def convert(walk: Walk, eqn: Any, values: list[Value]) -> Any:
    """Change the dtype; a routed one-hot of E ways becomes 1/E everywhere as floats."""
    value, dtype = values[0], eqn.params["new_dtype"]
    number = jnp.issubdtype(dtype, jnp.inexact)
    if value.kind is Kind.ROUTED and number:
        if not value.ways:
            return walk.without_rule(eqn, values)
        walk.note("routing", eqn, "one-hot")
        return Value(Kind.CONSTANT, jnp.full(value.shape, 1 / value.ways, dtype))
    if not value.is_signal or not is_weight(value.plain):
        return (
            chain(eqn, values)
            if value.is_signal
            else replace(value, array=bind(eqn, [value.array])[0])
        )
    if not number:
        return Value(Kind.ROUTED, bind(eqn, [freeze(walk.flow(walk.as_factor(value)))])[0])
    return in_shape(value, ("dtype", str(dtype)), lambda a: bind(eqn, [a])[0])


def split(_walk: Walk, eqn: Any, values: list[Value]) -> Any:
    """Split or unstack a value; each piece of a signal has a root of its own."""
    value = values[0]
    if not value.is_signal:
        return [replace(value, array=a) for a in bind(eqn, [value.array])]
    key = (eqn.primitive.name, repr(sorted(eqn.params.items())))
    return [
        in_shape(value, (*key, i), lambda a, i=i: bind(eqn, [a])[i])
        for i in range(len(eqn.outvars))
    ]


def add(walk: Walk, eqn: Any, values: list[Value]) -> Any:
    """Add or subtract: drop (or keep as |b|) sources, drop means, apply masks, add signals."""
    a, b = values
    minus = eqn.primitive.name == "sub"
    if minus and a.origin is b.origin and max(a.reduced, b.reduced) > 0:
        walk.note("centring", eqn)
        kept, dropped = (a, b) if b.reduced >= a.reduced else (b, a)
        return replace(kept, shifted=dropped.maxed) if kept.is_signal else kept
    if not signals(values):
        return elementwise_without_signal(walk, eqn, values)
    if one_root(eqn, values) is not None:
        lines = [v.line for v in values if v.is_signal]
        if len(lines) == 2:
            both = not minus and all(line is not None for line in lines)
            return chain(eqn, values, line=lines[0] + lines[1] if both else None)
        kept, number = (a, uniform_value(b)) if a.is_signal else (b, uniform_value(a))
        if not kept.frozen and not (minus and b.is_signal):
            offset = eqn if number else kept.offset
            left = eqn if kept.line is not None else kept.at
            return chain(eqn, values, line=kept.line, offset=offset, at=left)
        return chain(eqn, values, line=None if kept.frozen else kept.line)
    a, b = as_factors(walk, values)
    if a.is_signal and b.is_signal:
        return add_signals(walk, a, b)
    if not signals([a, b]):
        return Value(kind_of([a, b]), bind(eqn, [a.array, b.array])[0])
    kept, source = (a, b) if a.is_signal else (b, a)
    return with_source(walk, eqn, kept, source, minus)


def add_signals(walk: Walk, a: Value, b: Value) -> Value:
    """Add two signals, each with its share of the flow.

    A branch, which was computed from the other signal, has the share `Walk.branches` beside it;
    signals of which neither was computed from the other have shares by their numbers of terms. One
    signal and itself, moved or gated as in rotary positions, keep the shares that they have.

    Beside a further branch of the same skip the sum counts as 1/s terms, so that in x + f(x) + g(x)
    both branches have the same share.
    """
    flows, behind, branches = (walk.flow(a), walk.flow(b)), all_behind(a, b), walk.branches
    if a.origin is b.origin:
        kept = {"origin": a.origin, "terms": largest(a.terms, b.terms), "behind": behind}
        return signal(flows[0] + flows[1], **kept)
    if branches is None:
        return signal(flows[0] + flows[1])
    if b.origin in a.behind or a.origin in b.behind:
        share, terms = branches if b.origin in a.behind else 1 - branches, 1 / branches
    else:
        terms = a.terms + b.terms
        share = a.terms / terms
    return signal(add_in_shares(*flows, share), terms=terms, behind=behind)


def in_shape_of(eqn: Any, flow: Any) -> Any:
    """Repeat a flow along axes of length 1, as an equation does whose other operand is dropped."""
    return jnp.broadcast_to(flow, eqn.outvars[0].aval.shape)


def with_source(walk: Walk, eqn: Any, kept: Value, source: Value, minus: bool) -> Value:
    """Drop a summand of a signal, or keep it as |b|; one far below 0 is a mask, which stays."""
    flow = in_shape_of(eqn, walk.flow(kept))
    if source.kind is not Kind.WEIGHT and not minus:
        forbidden = source.array <= MASKED
        if isinstance(forbidden, Tracer) or bool(forbidden.any()):
            walk.note("mask", eqn)
            return signal(jnp.where(forbidden, jnp.zeros_like(flow), flow), kept)
    walk.note("source", eqn)
    if walk.sources and source.kind is Kind.WEIGHT and not minus:
        return signal(flow + coefficient(source.array), kept, count=1)
    return signal(flow, kept)
