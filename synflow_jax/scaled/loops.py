"""Loops and branches on (mantissa, exponent) pairs: they carry both, and rescale once a turn."""

import math
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr

from synflow_jax.scaled.array import DEAD, Value, is_float, limit, rescale, shift, true_value
from synflow_jax.scaled.equations import bind, scan_sizes
from synflow_jax.scaled.interpreter import LOOPS, growth_inside, run
from synflow_jax.scaled.rules import by_value, like


def loose(value: Value) -> tuple[Any, Any]:
    """Split a value in two arrays that a loop can carry."""
    fresh = rescale(value) if is_float(value.array) and np.size(value.array) else value
    return jnp.asarray(fresh.array), jnp.asarray(fresh.exponent, jnp.int32)


def tight(array: Any, exponent: Any) -> Value:
    """Put together what a loop carried."""
    return Value(array, exponent, 1.0) if is_float(array) else Value(array)


def scan(eqn: Any, values: list[Value]) -> list[Value]:
    """Interpret the body of a scan, unless its values cannot leave the range."""
    p = eqn.params
    bits = _bits_after(eqn, values)
    if bits <= min((limit(v.array.dtype) for v in values if is_float(v.array)), default=0.0):
        return like(bind(eqn, [v.array for v in values]), Value(None), bits)
    fixed, count = scan_sizes(eqn)
    carried = fixed + count
    consts, xs = values[:fixed], values[carried:]

    def turn(carry: Any, slices: list[Any]) -> tuple[Any, Any]:
        now = [tight(*two) for two in carry]
        rows = [Value(a, v.exponent, v.bits) for a, v in zip(slices, xs, strict=True)]
        results = [loose(v) for v in run(p["jaxpr"], [*consts, *now, *rows])]
        return results[:count], results[count:]

    start = [loose(v) for v in values[fixed:carried]]
    rows = [v.array for v in xs]
    final, stacked = lax.scan(turn, start, rows, p["length"], p["reverse"], p["unroll"])
    return [tight(*two) for two in final] + [_restack(*two) for two in stacked]


def _restack(array: Any, exponents: Any) -> Value:
    """Bring the rows that a scan stacked to one exponent."""
    if not is_float(array) or not np.size(array):
        return Value(array)
    highest = jnp.max(exponents, initial=jnp.int32(DEAD))
    shifts = (exponents - highest).reshape((-1,) + (1,) * (array.ndim - 1))
    return Value(shift(array, shifts), highest, 1.0)


def _bits_after(eqn: Any, values: list[Value]) -> float:
    """Bound what a scan of plain values may grow to; infinite where it must be interpreted."""
    if not all(v.plain for v in values):
        return math.inf
    start = max((v.bits for v in values), default=0.0)
    return start + eqn.params["length"] * growth_inside(eqn.params["jaxpr"])


def while_loop(eqn: Any, values: list[Value]) -> list[Value]:
    """Carry (mantissa, exponent) through a while loop."""
    p = eqn.params
    first, last = p["cond_nconsts"], p["cond_nconsts"] + p["body_nconsts"]
    if not any(is_float(v.array) for v in values[last:]):
        return by_value(eqn, values, None)

    def go_on(carry: Any) -> Any:
        return run(p["cond_jaxpr"], [*values[:first], *(tight(*two) for two in carry)])[0].array

    def turn(carry: Any) -> Any:
        results = run(p["body_jaxpr"], [*values[first:last], *(tight(*two) for two in carry)])
        return [loose(v) for v in results]

    return [tight(*two) for two in lax.while_loop(go_on, turn, [loose(v) for v in values[last:]])]


def cond(eqn: Any, values: list[Value]) -> list[Value]:
    """Let every branch return (mantissa, exponent)."""
    index, *rest = values
    branches = [partial(_branch, branch, rest) for branch in eqn.params["branches"]]
    return [tight(*two) for two in lax.switch(true_value(index).astype(jnp.int32), branches)]


def _branch(closed: ClosedJaxpr, rest: list[Value]) -> list[tuple[Any, Any]]:
    return [loose(v) for v in run(closed, rest)]


LOOPS.update({"scan": scan, "while": while_loop, "cond": cond})
