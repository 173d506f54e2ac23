"""Loops and branches on (mantissa, exponent) pairs: they carry both, and rescale once a turn."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr

from synflow_jax.scaled.array import DEAD, Value, is_float, limit, rescale, shift, true_value
from synflow_jax.scaled.equations import bind, scan_sizes
from synflow_jax.scaled.interpreter import LOOPS, run
from synflow_jax.scaled.rules import by_value


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
    if _stays_small(eqn, values):
        return [Value(r, bits=limit(jnp.float16)) for r in bind(eqn, [v.array for v in values])]
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


def _stays_small(eqn: Any, values: list[Value]) -> bool:
    """Whether a scan of plain values has no room to grow: then it runs as it is."""
    if not all(v.plain for v in values):
        return False
    grown = _grown(eqn.params["jaxpr"])
    floats = [v.array.dtype for v in values if is_float(v.array)]
    room = min((limit(dtype) for dtype in floats), default=0.0)
    return max((v.bits for v in values), default=0.0) + eqn.params["length"] * grown <= room


def _grown(closed: ClosedJaxpr) -> float:
    """By how many powers of two one turn may move what is near 1: infinite if it must rescale."""
    found = [0.0]

    def probe(arrays: list[Any]) -> None:
        results = run(closed, [Value(array) for array in arrays])
        found.extend(v.bits if v.plain else float("inf") for v in results if is_float(v.array))

    shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in closed.jaxpr.invars]
    jax.eval_shape(probe, shapes)
    return max(found)


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
