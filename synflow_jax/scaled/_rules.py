"""How each primitive acts on (mantissa, exponent) pairs: one rule a family, in the table RULES.

A rule maps (equation, operands, floor) to results; `floor` is the least exponent of signals.
"""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from synflow_jax.jaxpr import bind
from synflow_jax.scaled._array import (
    Value,
    align,
    align_low,
    is_float,
    max_bits,
    rescale,
    true_value,
)
from synflow_jax.scaled._convolutions import as_product, is_better_as_product

Rule = Callable[[Any, list[Value], Any], list[Value]]

# Homogeneous of degree 1 in the first operand; the others, such as indices, are whole numbers.
MOVES = frozenset({
    "abs", "neg", "reshape", "broadcast_in_dim", "transpose", "squeeze", "slice", "rev", "copy",
    "copy_p", "reduce_precision", "stop_gradient", "sharding_constraint", "device_put", "split",
    "dynamic_slice", "gather", "name", "mesh_cast", "reshard", "pvary", "layout_constraint", "real",
    "imag", "conj", "tile", "unstack",
})  # fmt: skip
ORDER = frozenset({
    "reduce_max", "reduce_min", "cummax", "cummin", "reduce_window_max", "reduce_window_min",
    "top_k", "argmax", "argmin",
})  # fmt: skip
EACH = frozenset({"optimization_barrier", "sort"})  # as MOVES, each operand by itself
SIGNS = frozenset({"sign", "is_finite"})
SUMS = frozenset({"reduce_sum", "cumsum", "reduce_window_sum", "fft"})
COMPARISONS = frozenset({"eq", "ne", "lt", "le", "gt", "ge", "lt_to", "le_to", "eq_to"})
ADDITIONS = frozenset({"add", "sub", "add_any", "scatter-add", "scatter_add"})
MEETINGS = ADDITIONS | {
    "max", "min", "clamp", "complex", "concatenate", "stack", "pad", "select_n",
    "dynamic_update_slice", "scatter", "scatter_max", "scatter_min",
}  # fmt: skip
PRODUCTS = frozenset({"mul", "div", "dot_general", "conv_general_dilated"})
CONTRACTIONS = frozenset({"dot_general", "conv_general_dilated"})


def with_exponent_of(results: list[Any], value: Value, bits: float) -> list[Value]:
    """Make values of results, the floating ones with the exponent of `value`."""
    parts = (value.exponent, bits, value.neutral, False, value.floored)
    return [Value(r, *parts) if is_float(r) else Value(r) for r in results]


def homogeneous(eqn: Any, values: list[Value], floor: Any) -> list[Value]:
    """Evaluate f with f(2^e·m) = 2^e·f(m), such as a transpose or a maximum."""
    del floor
    return with_exponent_of(bind(eqn, [value.array for value in values]), values[0], values[0].bits)


def one_by_one(eqn: Any, values: list[Value], floor: Any) -> list[Value]:
    """Evaluate a function that moves each operand by itself: each result keeps its exponent."""
    del floor
    pairs = zip(bind(eqn, [value.array for value in values]), values, strict=True)
    return [with_exponent_of([result], value, value.bits)[0] for result, value in pairs]


def of_sign(eqn: Any, values: list[Value], floor: Any) -> list[Value]:
    """Evaluate f with f(2^e·m) = f(m)."""
    del floor
    return [Value(r) for r in bind(eqn, [values[0].array])]


def convert(eqn: Any, values: list[Value], floor: Any) -> list[Value]:
    """Change the dtype: a floating or complex one keeps the exponent."""
    (value,) = values
    wanted = eqn.params["new_dtype"]
    if not is_float(value.array) or not jnp.issubdtype(wanted, jnp.inexact):
        return by_value(eqn, values, floor)
    if value.bits > max_bits(wanted):
        values = [rescale(value, floor)]
    return homogeneous(eqn, values, floor)


def sums(eqn: Any, values: list[Value], floor: Any) -> list[Value]:
    """Sum over n entries: the exponent stays, the bits grow by log2 n."""
    del floor
    (value,) = values
    results = bind(eqn, [value.array])
    return with_exponent_of(results, value, value.bits + math.log2(max(value.array.size, 1)))


def powers(eqn: Any, values: list[Value], floor: Any) -> list[Value]:
    """Evaluate x^p, f(2^e·m) = 2^(p·e)·f(m); for roots, an odd exponent is made even first."""
    name = eqn.primitive.name
    power = {"square": 2, "sqrt": 0.5, "rsqrt": -0.5}.get(name) or eqn.params["y"]
    (value,) = values
    if not is_float(value.array):
        return by_value(eqn, values, floor)
    if value.bits * abs(power) > max_bits(value.array.dtype):
        value = rescale(value, floor)
    array, exponent = value.array, value.exponent
    if value.plain:
        exponent = 0
    elif isinstance(power, int):
        exponent = exponent * power
    else:
        odd = exponent & 1
        array = array * (1 + odd).astype(array.dtype)
        half = lax.shift_right_arithmetic(exponent - odd, jnp.int32(1))
        exponent = half if power > 0 else -half
    bits = value.bits * abs(power) + (0 if value.plain else 1)
    return [Value(r, exponent, bits) for r in bind(eqn, [array])]


LEAST = 4.0  # bits of a contraction of few terms, whose weights may be small or large themselves


def growth(eqn: Any, values: list[Value]) -> float:
    """Bound the bits that a product adds.

    It is log2 of the number of terms of each sum, at least LEAST; |log2 c| for a factor c; 1 for
    any other product.
    """
    name, right = eqn.primitive.name, values[1].array
    if name == "dot_general":
        axes = eqn.params["dimension_numbers"][0][1]
        return max(math.log2(max(math.prod(right.shape[axis] for axis in axes), 1)), LEAST)
    if name == "conv_general_dilated":
        features = right.shape[eqn.params["dimension_numbers"].rhs_spec[0]]
        return max(math.log2(max(right.size / max(features, 1), 1)), LEAST)
    numbers = [v.array for v in values if np.ndim(v.array) == 0 and not isinstance(v.array, Tracer)]
    known = [float(np.abs(np.asarray(number))) for number in numbers]
    return sum(abs(math.log2(n)) for n in known if 0 < n < math.inf) if known else 1.0


def _multiply(eqn: Any, left: Any, right: Any) -> list[Any]:
    if eqn.primitive.name == "conv_general_dilated" and is_better_as_product(eqn, left, right):
        return [as_product(eqn, left, right)]
    return bind(eqn, [left, right])


def products(eqn: Any, values: list[Value], floor: Any) -> list[Value]:
    """Multiply, divide, contract or convolve: f(2^a·m, 2^b·n) = 2^(a±b)·f(m, n)."""
    if not is_float(values[0].array):
        return by_value(eqn, values, floor)
    grown = growth(eqn, values)
    if sum(v.bits for v in values) + grown > 1.5 * max_bits(values[0].array.dtype):
        values = [rescale(v, floor) if v.bits > 2 else v for v in values]
    left, right = values
    results = _multiply(eqn, left.array, right.array)
    bits = left.bits + right.bits + grown
    inverse = eqn.primitive.name == "div"
    if right.plain:
        return with_exponent_of(results, left, bits)
    if left.plain and not inverse:
        return with_exponent_of(results, right, bits)
    exponent = left.exponent - right.exponent if inverse else left.exponent + right.exponent
    return [rescale(Value(r, exponent, bits), floor) for r in results]


def meetings(eqn: Any, values: list[Value], floor: Any) -> list[Value]:
    """Add, join or select from floating operands, after bringing them to one exponent."""
    adding = eqn.primitive.name in ADDITIONS
    arrays, joint = align([v for v in values if is_float(v.array)] or values, floor, adding)
    fresh = iter(arrays)
    results = bind(eqn, [next(fresh) if is_float(v.array) else v.array for v in values])
    return with_exponent_of(results, joint, joint.bits + adding)


def bound(eqn: Any, values: list[Value], floor: Any) -> list[Value]:
    """Evaluate min and clamp at the lower exponent: a bound c must not vanish beside a large x."""
    relevant = [v for v in values if is_float(v.array) and not v.neutral]
    if len({v.plain for v in relevant}) < 2:
        return meetings(eqn, values, floor)
    arrays, joint = align_low(values)
    return with_exponent_of(bind(eqn, arrays), joint, joint.bits)


def compare(eqn: Any, values: list[Value], floor: Any) -> list[Value]:
    """Compare two operands, after bringing them to one exponent."""
    arrays = align(values, floor)[0] if is_float(values[0].array) else [v.array for v in values]
    return [Value(r) for r in bind(eqn, arrays)]


def logarithm(eqn: Any, values: list[Value], floor: Any) -> list[Value]:
    """Evaluate the logarithm, log(2^e·m) = log m + e·log 2."""
    del floor
    (value,) = values
    (result,) = bind(eqn, [value.array])
    if value.plain:
        return [Value(result)]
    ln2 = jnp.asarray(math.log(2), result.dtype)
    return [Value(result + value.exponent.astype(result.dtype) * ln2)]


def by_value(eqn: Any, values: list[Value], floor: Any) -> list[Value]:
    """Evaluate a primitive without a rule on the values themselves, as plain JAX does."""
    del floor
    return [Value(r) for r in bind(eqn, [true_value(v) for v in values])]


RULES: dict[str, Rule] = {
    **dict.fromkeys(MOVES | ORDER, homogeneous),
    **dict.fromkeys(EACH, one_by_one),
    **dict.fromkeys(SIGNS, of_sign),
    **dict.fromkeys(SUMS, sums),
    **dict.fromkeys(COMPARISONS, compare),
    **dict.fromkeys(MEETINGS, meetings),
    **dict.fromkeys(("min", "clamp"), bound),
    **dict.fromkeys(("square", "integer_pow", "sqrt", "rsqrt"), powers),
    **dict.fromkeys(PRODUCTS, products),
    "convert_element_type": convert,
    "log": logarithm,
}
