"""The rules of flow mode that combine values or axes: products, quotients, choices, reductions."""

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from synflow_jax.flow._rules import (
    add_signals,
    as_factors,
    chain,
    elementwise_without_signal,
    in_shape_of,
    kind_of,
    one_root,
    signals,
)
from synflow_jax.flow._shares import in_proportion, largest
from synflow_jax.flow._values import (
    Kind,
    Value,
    all_behind,
    balanced,
    carried,
    coefficient,
    freeze,
    reciprocal,
    signal,
    uniform_value,
)
from synflow_jax.flow._walk import Walk
from synflow_jax.jaxpr import bind
from synflow_jax.trees import is_weight, zeros_as


def mul(walk: Walk, eqn: Any, values: list[Value]) -> Any:
    """Multiply: a constant continues the chain, a weight or another signal makes a new root."""
    if not signals(values):
        return walk.without_signal(eqn, values)
    a, b = values
    if a.is_signal and b.is_signal and one_root(eqn, values) is not None:
        return chain(eqn, values, frozen=a.frozen and b.frozen)
    kept, factor = (a, b) if a.is_signal else (b, a)
    if factor.kind is Kind.CONSTANT and eqn.outvars[0].aval.shape == kept.shape:
        line = None if kept.line is None else kept.line * coefficient(factor.array)
        at = kept.at if line is None else None
        return chain(eqn, values, line=line, at=at, shifted=kept.shifted, frozen=kept.frozen)
    return product(walk, eqn, values)


def product(walk: Walk, eqn: Any, values: list[Value]) -> Any:
    """Multiply a signal by |W|, or two signals with the flow shared between them."""
    a, b = as_factors(walk, values)
    if not signals([a, b]):
        return walk.without_signal(eqn, [a, b])
    arrays = [walk.flow(v) if v.is_signal else coefficient(v.array) for v in (a, b)]

    def multiply(f: Any, g: Any) -> Any:
        return bind(eqn, [f, g])[0]

    if a.is_signal and b.is_signal:
        walk.note("product", eqn)
        out = balanced(a, b, (arrays[0], arrays[1]), multiply)
        terms = largest(a.terms, b.terms)
        return signal(out, count=a.count + b.count, terms=terms, behind=all_behind(a, b))
    out, like = multiply(*arrays), a if a.is_signal else b
    if eqn.primitive.name == "mul":
        return signal(out, like)
    if Kind.WEIGHT not in (a.kind, b.kind):
        return signal(out, **carried(like))
    return signal(out, behind=all_behind(like))  # by a kernel: one term, whatever came before


def div(walk: Walk, eqn: Any, values: list[Value]) -> Any:
    """Divide by a constant, or by anything else as by a frozen factor, a normaliser."""
    a, b = values
    if not b.is_signal:
        if b.kind is Kind.CONSTANT and not a.is_signal:
            return walk.without_signal(eqn, values)
        if b.kind is Kind.CONSTANT and eqn.outvars[0].aval.shape == a.shape:
            line = None if a.line is None else a.line / coefficient(b.array)
            return chain(eqn, values, line=line, at=a.at, shifted=a.shifted, frozen=a.frozen)
        if b.kind is Kind.WEIGHT:
            walk.note("normaliser", eqn)
        factor = replace(b, array=freeze(reciprocal(b.array)))
    elif one_root(eqn, values) is not None:
        if a.is_signal:
            return chain(eqn, values, frozen=a.frozen)
        return chain(eqn, values, frozen=b.reduced > 0)
    else:
        walk.note("normaliser", eqn)
        factor = Value(Kind.WEIGHT, freeze(reciprocal(b.plain)))
    a = walk.as_factor(a)
    if a.is_signal:
        return signal(walk.flow(a) * coefficient(factor.array), a)
    return Value(max(a.kind, factor.kind), a.array * factor.array, a.origin, a.reduced)


def maximum(walk: Walk, eqn: Any, values: list[Value]) -> Any:
    """Take the maximum: ReLU keeps the line, with derivative 0 at 0, and max(x, −∞) is x."""
    if not signals(values):
        return elementwise_without_signal(walk, eqn, values)
    a, b = values if values[0].is_signal else values[::-1]
    number = uniform_value(b)
    if number is not None and number == -np.inf:
        return a
    if number is not None and number == 0 and a.line is not None:
        line = jnp.where(a.line > 0, a.line, jnp.zeros_like(a.line))
        return chain(eqn, values, line=line)
    if one_root(eqn, values) is not None:
        return chain(eqn, values)
    a, b = as_factors(walk, [a, b])
    if a.is_signal and b.is_signal:
        return signal(jnp.maximum(walk.flow(a), walk.flow(b)), behind=all_behind(a, b))
    if not a.is_signal:
        return walk.without_signal(eqn, [a, b])
    walk.note("source", eqn)
    return signal(in_shape_of(eqn, walk.flow(a)), a)


def select(walk: Walk, eqn: Any, values: list[Value]) -> Any:
    """Select: summands become 0, masks stay, and a choice by routing becomes uniform."""
    which, *cases = values
    index = uniform_value(which)
    if index is not None:
        return cases[int(index)]
    if not which.is_signal and not signals(cases) and which.kind is not Kind.ROUTED:
        return walk.without_signal(eqn, values)
    if which.is_signal and one_root(eqn, values) is not None:
        return chain(eqn, values, shifted=False)
    cases = as_factors(walk, cases)
    if not signals(cases) and not which.is_signal and not is_weight(cases[0].array):
        return Value(Kind.ROUTED, bind(eqn, [v.array for v in [which, *cases]])[0])
    arrays = [walk.flow(v) if v.is_signal else zeros_as(v.array) for v in cases]
    if which.kind is Kind.ROUTED:
        if not which.ways or len(cases) != 2:
            return walk.without_rule(eqn, values)
        walk.note("routing", eqn, "one-hot")
        if not signals(cases):
            arrays = [v.array for v in cases]
        mean = arrays[0] * (1 - 1 / which.ways) + arrays[1] / which.ways
        if not signals(cases):
            return Value(kind_of(cases), mean)
        return signal(mean, behind=all_behind(*signals(cases)))
    if not signals(cases):
        arrays = [v.array for v in cases]
        return Value(max(kind_of(cases), Kind.DISCRETE), bind(eqn, [freeze(which.raw), *arrays])[0])
    if any(v.kind is Kind.WEIGHT for v in cases):
        walk.note("source", eqn)
    out = bind(eqn, [freeze(which.raw), *arrays])[0]
    found = signals(cases)
    if all(v.origin is found[0].origin for v in found):
        return signal(out, found[0], shifted=found[0].shifted)
    return signal(out, behind=all_behind(*found), shifted=found[0].shifted)


def reduced(walk: Walk, eqn: Any, values: list[Value]) -> Any:
    """Sum or take the maximum over axes, and count the reduction for `add` and `div`."""
    value, over = walk.as_factor(values[0]), eqn.primitive.name
    steps = 0 if over == "reduce_window_max" else 1
    if not value.is_signal:
        out = walk.without_signal(eqn, [value])[0]
        return replace(out, origin=value.origin, reduced=value.reduced + steps)
    out = bind(eqn, [walk.flow(value)])[0]
    return signal(out, value, reduced=value.reduced + steps, maxed=over == "reduce_max")


def lookup(walk: Walk, eqn: Any, values: list[Value]) -> Any:
    """Look up entries; by routed indices, of which each is as likely, their mean is found.

    So each row of a codebook, each expert and each token has the same flow.
    """
    array, *indices = as_factors(walk, values)
    routed = [v.kind is Kind.ROUTED for v in indices]
    if not any(routed) or not is_weight(eqn.outvars[0].aval):
        return linear(walk, eqn, values)
    walk.note("routing", eqn, "lookup")
    flow = walk.flow(array) if array.is_signal else coefficient(array.array)
    axes, sizes = range(flow.ndim), eqn.params["slice_sizes"]
    if eqn.primitive.name == "gather":
        axes = eqn.params["dimension_numbers"].start_index_map
    else:
        axes = [axis for axis in axes if routed[axis]]
    over = tuple(axis for axis in axes if sizes[axis] < flow.shape[axis])
    mean = jnp.broadcast_to(jnp.mean(flow, over, keepdims=True), flow.shape)
    out = bind(eqn, [mean, *(walk.flow(v) for v in indices)])[0]
    return signal(out, **carried(array)) if array.is_signal else Value(array.kind, out)


def linear(walk: Walk, eqn: Any, values: list[Value]) -> Any:
    """Evaluate a homogeneous function on the flows, with weights and constants set to 0."""
    values = as_factors(walk, values)
    if not signals(values):
        routed = any(v.kind is Kind.ROUTED for v in values) and is_weight(eqn.outvars[0].aval)
        return walk.without_rule(eqn, values) if routed else walk.without_signal(eqn, values)
    if any(v.kind is Kind.ROUTED for v in values):
        return walk.without_rule(eqn, values)
    found = signals(values)
    arrays = [
        walk.flow(v)
        if v.is_signal or not is_weight(v.array) or np.ndim(v.array) == 0
        else zeros_as(v.array)
        for v in values
    ]
    return signal(bind(eqn, arrays)[0], **carried(found[0]))


def scattered(walk: Walk, eqn: Any, values: list[Value]) -> Any:
    """Add updates at places of a signal: a sum of the signal and of the updates among zeros."""
    base, places, updates = as_factors(walk, values)
    if not (base.is_signal and updates.is_signal) or places.kind is Kind.ROUTED:
        return linear(walk, eqn, values)
    among = bind(eqn, [jnp.zeros_like(walk.flow(base)), places.raw, walk.flow(updates)])[0]
    return add_signals(walk, base, signal(among, **carried(updates)))


MASKED_PAD = -1e30  # a lower filler is that of a maximum


def pad(walk: Walk, eqn: Any, values: list[Value]) -> Any:
    """Pad with 0; a very low filler, as for a maximum, stays."""
    value, filler = walk.as_factor(values[0]), values[1]
    if not value.is_signal:
        return walk.without_signal(eqn, [value, filler])
    number = uniform_value(filler)
    lowest = number is not None and number < MASKED_PAD
    array = filler.array if lowest else jnp.zeros_like(filler.array)
    return signal(bind(eqn, [walk.flow(value), array])[0], value)


def concatenate(walk: Walk, eqn: Any, values: list[Value]) -> Any:
    """Concatenate or stack signals, each with the same mean if `Walk.branches` is set.

    Without sources, a class token becomes the mean of tokens.
    """
    values = as_factors(walk, values)
    found = signals(values)
    if not found:
        return walk.without_signal(eqn, values)
    flows = [walk.flow(v) for v in found]
    if walk.branches is not None and any(v.origin is not found[0].origin for v in found):
        flows = in_proportion(flows, [float(flow.size) for flow in flows])
    joined = iter(flows)
    arrays = []
    for value in values:
        array = next(joined) if value.is_signal else value.array
        if value.kind is Kind.WEIGHT and not walk.sources:
            walk.note("source", eqn, "token")
            array = jnp.broadcast_to(_mean(eqn, flows), array.shape)
        elif not value.is_signal:
            number = value.kind is Kind.CONSTANT
            array = zeros_as(array) if number else coefficient(array)
        arrays.append(array)
    count = found[0].count if all(v.count == found[0].count for v in found) else 1
    terms = largest(*(v.terms for v in found))
    kept = {"count": count, "terms": terms, "behind": all_behind(*found)}
    if all(v.origin is found[0].origin for v in found):  # pieces of one signal, as of a roll
        kept["origin"] = found[0].origin
    return signal(bind(eqn, arrays)[0], **kept)


def _mean(eqn: Any, flows: list[Any]) -> Any:
    """Return the mean of flows over the axis along which they are joined."""
    axis = eqn.params.get("dimension")
    if axis is None:  # they are stacked along a new axis
        return sum(flows) / len(flows)
    total = sum(jnp.sum(flow, axis, keepdims=True) for flow in flows)
    return total / sum(flow.shape[axis] for flow in flows)


def neg(walk: Walk, eqn: Any, values: list[Value]) -> Any:
    """Negate φ(r); the flow has no sign."""
    value = values[0]
    if not value.is_signal:
        return walk.without_signal(eqn, values)
    return chain(eqn, values, line=value.line, at=value.at)


def argmax(walk: Walk, eqn: Any, values: list[Value]) -> Any:
    """Take the argmax of a signal: its result is routed."""
    value = walk.as_factor(values[0])
    if not value.is_signal:
        return walk.without_signal(eqn, [value])
    return Value(Kind.ROUTED, bind(eqn, [freeze(walk.flow(value))])[0])


def top_k(walk: Walk, eqn: Any, values: list[Value]) -> Any:
    """Take the k largest: the values are a signal, the indices are routed."""
    value = walk.as_factor(values[0])
    if not value.is_signal:
        return walk.without_signal(eqn, [value])
    highest, index = bind(eqn, [walk.flow(value)])
    return [signal(highest, value), Value(Kind.ROUTED, index)]


def ordered(walk: Walk, eqn: Any, values: list[Value]) -> Any:
    """Sort: sorted signals are signals, and positions that go with them are routed."""
    values = as_factors(walk, values)
    if not signals(values):
        return walk.without_signal(eqn, values)
    pairs = zip(bind(eqn, [walk.flow(v) for v in values]), values, strict=True)
    return [
        signal(array, v)
        if v.is_signal
        else Value(v.kind if is_weight(array) else Kind.ROUTED, freeze(array))
        for array, v in pairs
    ]
