"""Evaluation of a function on (mantissa, exponent) pairs, by interpreting its jaxpr.

Every function that JAX can trace runs. If all its primitives are in `_rules.RULES`, no intermediate
value overflows or underflows; any other primitive gets the value itself. Calls are inlined; loops
and branches are rebuilt around bodies that take and return pairs.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial, wraps
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr

from synflow_jax.jaxpr import CUSTOM, Step, bind, body_of, flatten, scan_sizes
from synflow_jax.scaled._array import (
    DEAD,
    Scaled,
    Value,
    floor_of,
    is_float,
    max_bits,
    rescale,
    shift,
    true_value,
)
from synflow_jax.scaled._rules import CONTRACTIONS, MEETINGS, RULES, by_value, with_exponent_of


def scaled(fn: Callable[..., Any], sizes: tuple[float, ...] = ()) -> Callable[..., Any]:
    """Make a function whose sums and products neither overflow nor underflow, at any depth.

    Each intermediate array is mantissa × 2^exponent with one exponent for all its entries. An array
    is rescaled where the sums since its last rescaling could have moved it by half of its dtype's
    exponent range, each sum of n terms counting log2 n. Arguments and constants are taken to be of
    size near 1 unless `sizes` is given. Up to the first rescaling, the program is that of fn.

    Args:
      fn: any function of arrays that JAX can trace.
      sizes: for each leaf of the arguments, a bound on |log2| of its largest entry; empty for
        sizes near 1.

    Returns:
      A function of the same arguments; each floating or complex output is a Scaled(mantissa,
      exponent), the value being mantissa × 2^exponent. Exponents carry no gradient: the gradient of
      a mantissa is 2^−exponent times that of the value.

    Example:
      >>> import jax.numpy as jnp
      >>> def product(x):
      ...     for _ in range(50):
      ...         x = x @ jnp.ones((64, 64))
      ...     return x.sum()
      >>> float(product(jnp.ones((1, 64))))
      inf
      >>> mantissa, exponent = scaled(product)(jnp.ones((1, 64)))
      >>> float(jnp.log2(mantissa)) + int(exponent)
      306.0
    """

    @wraps(fn)
    def evaluated(*args: Any) -> Any:
        closed, out = jax.make_jaxpr(fn, return_shape=True)(*args)
        leaves = jax.tree.leaves(args)
        if sizes and len(sizes) != len(leaves):
            raise ValueError(f"sizes must have one number a leaf, {len(leaves)}, got {len(sizes)}")
        pairs = zip(leaves, sizes or [0.0] * len(leaves), strict=True)
        results = run(closed, [Value(leaf, bits=size) for leaf, size in pairs], top=True)
        return jax.tree.unflatten(jax.tree.structure(out), [as_scaled(v) for v in results])

    return evaluated


def as_scaled(value: Value) -> Any:
    """Turn a floating value into a `Scaled`, and any other into its array."""
    if not is_float(value.array):
        return value.array
    return Scaled(jnp.asarray(value.array), jnp.asarray(value.exponent, jnp.int32))


def constant(array: Any) -> Value:
    """Make a value of a constant; a single 0, infinity or NaN is neutral."""
    known = not isinstance(array, Tracer) and np.size(array) == 1 and is_float(array)
    number = np.asarray(array) if known else np.ones(())
    return Value(array, neutral=bool((number == 0).all() or not np.isfinite(number).all()))


def run(closed: ClosedJaxpr, values: list[Value], top: bool = False) -> list[Value]:
    """Interpret a jaxpr.

    Args:
      closed: the jaxpr.
      values: its inputs.
      top: whether it is the outermost one. Equations before any contraction or loop are then
        evaluated first: they make the sources, which give the floor of the signals' exponents.
    """
    env: list[Any] = list(values)

    def number(_: Any, known: Any = None) -> int:
        env.append(None if known is None else constant(known))
        return len(env) - 1

    steps, results = flatten(closed, list(range(len(values))), number)
    floor = None
    if top:
        touched, signals = _signals(steps)
        # By operands as well: an equation that prints or calls back has no results.
        late = [bool(touched.intersection((*s.operands, *s.results))) for s in steps]
        for step, waits in zip(steps, late, strict=True):
            if not waits:
                _evaluate(step, env, None)
        floor = _floor(steps, touched, signals, env)
        steps = [step for step, waits in zip(steps, late, strict=True) if waits]
    for step in steps:
        _evaluate(step, env, floor)
    return [env[place] for place in results]


def _signals(steps: list[Step]) -> tuple[set[int], set[int]]:
    """Return the numbers that depend on a contraction or a loop, and those that are signals.

    A signal may have an exponent; the result of a primitive without a rule has none.
    """
    touched: set[int] = set()
    signals: set[int] = set()
    for step in steps:
        name = step.eqn.primitive.name
        grows = name in CONTRACTIONS or name in LOOPS
        if grows or touched.intersection(step.operands):
            touched.update(step.results)
        ruled = name in RULES or name in CUSTOM
        if grows or (ruled and signals.intersection(step.operands)):
            signals.update(step.results)
    return touched, signals


def _floor(steps: list[Step], touched: set[int], signals: set[int], env: list[Any]) -> Any:
    """Mark the sources, which meet a signal but depend on no contraction; return the floor."""
    met = [s for s in steps if s.eqn.primitive.name in MEETINGS and signals.intersection(s.results)]
    places = {place for step in met for place in step.operands if place not in touched}
    sources = [p for p in sorted(places) if is_float(env[p].array) and not env[p].neutral]
    for place in sources:
        env[place] = replace(env[place], source=True)
    return floor_of([env[place].array for place in sources])


def _evaluate(step: Step, env: list[Any], floor: Any) -> None:
    """Evaluate one step by its rule, rescale the results where needed, and store them in env."""
    name, operands = step.eqn.primitive.name, [env[place] for place in step.operands]
    if name in CUSTOM:
        results = custom(step.eqn, operands)
    elif name in LOOPS:
        results = LOOPS[name](step.eqn, operands)
    else:
        results = RULES.get(name, by_value)(step.eqn, operands, floor)
    branches = [v for v in operands if is_float(v.array) and not (v.source or v.neutral)]
    joins = name in MEETINGS and len(branches) > 1
    for place, value in zip(step.results, results, strict=True):
        env[place] = _in_range(value, joins, floor)


def _in_range(value: Value, joins: bool, floor: Any) -> Value:
    """Rescale a value whose bits exceed `max_bits`, or half of that where branches meet."""
    if not is_float(value.array) or not np.size(value.array):
        return value
    room = max_bits(value.array.dtype) / (2 if joins else 1)
    return rescale(value, floor) if value.bits > room else value


def custom(eqn: Any, values: list[Value]) -> list[Value]:
    """Call a custom_jvp or custom_vjp function, which keeps its derivative.

    It gets mantissas if f(2^e·m) = 2^e·f(m), otherwise the values themselves.
    """
    distinct = {id(v.exponent): v for v in values if not v.plain}
    closed = body_of(eqn)
    if len(distinct) > 1 or (distinct and not _is_homogeneous(closed, values)):
        return by_value(eqn, values, None)
    first = next(iter(distinct.values()), Value(None))
    bits = max(v.bits for v in values) + body_growth(closed)
    return with_exponent_of(bind(eqn, [v.array for v in values]), first, bits)


@lru_cache(maxsize=1024)
def body_growth(closed: ClosedJaxpr) -> float:
    """Bound the bits that a body adds to inputs near 1; infinite if it rescales on its way."""
    found = [0.0]

    def probe(arrays: list[Any]) -> None:
        results = run(closed, [Value(array) for array in arrays])
        found.extend(v.bits if v.plain else float("inf") for v in results if is_float(v.array))

    # The avals keep the shardings of Explicit mesh axes.
    jax.eval_shape(probe, [v.aval for v in closed.jaxpr.invars])
    return max(found)


def _is_homogeneous(closed: ClosedJaxpr, values: list[Value]) -> bool:
    """Whether every floating result has the inputs' exponent, by the rules on shapes alone."""
    kept = []

    def probe(exponent: Any, arrays: list[Any]) -> None:
        pairs = zip(values, arrays, strict=True)
        inner = [Value(a, v.exponent if v.plain else exponent, 0.0, v.neutral) for v, a in pairs]
        kept.extend(v.exponent is exponent for v in run(closed, inner) if is_float(v.array))

    jax.eval_shape(probe, jnp.int32(0), [v.array for v in values])
    return all(kept)


# Loops and branches.


def to_pair(value: Value) -> tuple[Any, Any]:
    """Turn a value into (mantissa, exponent), two arrays that a loop can carry."""
    fresh = rescale(value) if is_float(value.array) and np.size(value.array) else value
    return jnp.asarray(fresh.array), jnp.asarray(fresh.exponent, jnp.int32)


def from_pair(array: Any, exponent: Any) -> Value:
    """Turn (mantissa, exponent) back into a value."""
    return Value(array, exponent, 1.0) if is_float(array) else Value(array)


def scan(eqn: Any, values: list[Value]) -> list[Value]:
    """Run a scan: unchanged if its values cannot leave the range, otherwise on pairs."""
    p = eqn.params
    bits = _bits_after(eqn, values)
    if bits <= min((max_bits(v.array.dtype) for v in values if is_float(v.array)), default=0.0):
        return with_exponent_of(bind(eqn, [v.array for v in values]), Value(None), bits)
    fixed, count = scan_sizes(eqn)
    carried = fixed + count
    consts, xs = values[:fixed], values[carried:]

    def turn(carry: Any, slices: list[Any]) -> tuple[Any, Any]:
        now = [from_pair(*two) for two in carry]
        rows = [Value(a, v.exponent, v.bits) for a, v in zip(slices, xs, strict=True)]
        results = [to_pair(v) for v in run(p["jaxpr"], [*consts, *now, *rows])]
        return results[:count], results[count:]

    start = [to_pair(v) for v in values[fixed:carried]]
    rows = [v.array for v in xs]
    final, stacked = lax.scan(turn, start, rows, p["length"], p["reverse"], p["unroll"])
    return [from_pair(*two) for two in final] + [_restack(*two) for two in stacked]


def _restack(array: Any, exponents: Any) -> Value:
    """Make a value of the rows that a scan stacked, each with its own exponent."""
    if not is_float(array) or not np.size(array):
        return Value(array)
    highest = jnp.max(exponents, initial=jnp.int32(DEAD))
    shifts = (exponents - highest).reshape((-1,) + (1,) * (array.ndim - 1))
    return Value(shift(array, shifts), highest, 1.0)


def _bits_after(eqn: Any, values: list[Value]) -> float:
    """Bound the bits after a scan of plain values; infinite if it must be interpreted."""
    if not all(v.plain for v in values):
        return math.inf
    start = max((v.bits for v in values), default=0.0)
    return start + eqn.params["length"] * body_growth(eqn.params["jaxpr"])


def while_loop(eqn: Any, values: list[Value]) -> list[Value]:
    """Run a while loop that carries pairs."""
    p = eqn.params
    first, last = p["cond_nconsts"], p["cond_nconsts"] + p["body_nconsts"]
    if not any(is_float(v.array) for v in values[last:]):
        return by_value(eqn, values, None)

    def go_on(carry: Any) -> Any:
        return run(p["cond_jaxpr"], [*values[:first], *(from_pair(*two) for two in carry)])[0].array

    def turn(carry: Any) -> Any:
        results = run(p["body_jaxpr"], [*values[first:last], *(from_pair(*two) for two in carry)])
        return [to_pair(v) for v in results]

    return [
        from_pair(*two) for two in lax.while_loop(go_on, turn, [to_pair(v) for v in values[last:]])
    ]


def cond(eqn: Any, values: list[Value]) -> list[Value]:
    """Run a conditional whose branches return pairs."""
    index, *rest = values
    branches = [partial(_branch, branch, rest) for branch in eqn.params["branches"]]
    return [from_pair(*two) for two in lax.switch(true_value(index).astype(jnp.int32), branches)]


def _branch(closed: ClosedJaxpr, rest: list[Value]) -> list[tuple[Any, Any]]:
    return [to_pair(v) for v in run(closed, rest)]


LOOPS: dict[str, Callable[[Any, list[Value]], list[Value]]] = {
    "scan": scan,
    "while": while_loop,
    "cond": cond,
}
