"""What each primitive does to (mantissa, exponent) pairs, in families, by name.

A rule maps (equation, operands, floor) to results; `floor` is the least exponent for signals.
"""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from synflow_jax.jaxpr import bind
from synflow_jax.scaled._array import Value, align, align_low, is_float, limit, rescale, true_value
from synflow_jax.scaled._convolutions import as_product, is_better_as_product

Rule = Callable[[Any, list[Value], Any], list[Value]]

# Degree 1 in the first operand: entries are moved, flipped or chosen; the rest is whole numbers.
MOVES = frozenset({
    "abs", "neg", "reshape", "broadcast_in_dim", "transpose", "squeeze", "slice", "rev", "copy",
    "copy_p", "reduce_precision", "stop_gradient", "sharding_constraint", "device_put", "split",
    "dynamic_slice", "gather", "name", "mesh_cast", "reshard", "pvary", "layout_constraint",
})  # fmt: skip
ORDER = frozenset({
    "reduce_max", "reduce_min", "cummax", "cummin", "reduce_window_max", "reduce_window_min",
    "top_k", "argmax", "argmin",
})  # fmt: skip
EACH = frozenset({"optimization_barrier", "sort"})  # as MOVES, operand by operand
SIGNS = frozenset({"sign", "is_finite"})
SUMS = frozenset({"reduce_sum", "cumsum", "reduce_window_sum"})
COMPARISONS = frozenset({"eq", "ne", "lt", "le", "gt", "ge", "lt_to", "le_to", "eq_to"})
ADDITIONS = frozenset({"add", "sub", "add_any", "scatter-add", "scatter_add"})
MEETINGS = ADDITIONS | {
    "max", "min", "clamp", "concatenate", "pad", "select_n", "dynamic_update_slice", "scatter",
    "scatter_max", "scatter_min",
}  # fmt: skip
PRODUCTS = frozenset({"mul", "div", "dot_general", "conv_general_dilated"})
CONTRACTIONS = frozenset({"dot_general", "conv_general_dilated"})


def like(results: list[Any], value: Value, bits: float) -> list[Value]:
    """Give the floating results the exponent of a value."""
    parts = (value.exponent, bits, value.neutral, False, value.floored)
    return [Value(r, *parts) if is_float(r) else Value(r) for r in results]


def homogeneous(eqn: Any, values: list[Value], floor: Any) -> list[Value]:
    """f(2^e·m) = 2^e·f(m): moving entries, taking the largest."""
    del floor
    return like(bind(eqn, [value.array for value in values]), values[0], values[0].bits)


def one_by_one(eqn: Any, values: list[Value], floor: Any) -> list[Value]:
    """Operands that are moved side by side keep their exponents."""
    del floor
    pairs = zip(bind(eqn, [value.array for value in values]), values, strict=True)
    return [like([result], value, value.bits)[0] for result, value in pairs]


def of_sign(eqn: Any, values: list[Value], floor: Any) -> list[Value]:
    """f(2^e·m) = f(m)."""
    del floor
    return [Value(r) for r in bind(eqn, [values[0].array])]


def convert(eqn: Any, values: list[Value], floor: Any) -> list[Value]:
    """Between floating dtypes the exponent stays; any other dtype gets the value."""
    (value,) = values
    wanted = eqn.params["new_dtype"]
    if not is_float(value.array) or not jnp.issubdtype(wanted, jnp.floating):
        return by_value(eqn, values, floor)
    if value.bits > limit(wanted):
        values = [rescale(value, floor)]
    return homogeneous(eqn, values, floor)


def sums(eqn: Any, values: list[Value], floor: Any) -> list[Value]:
    """A sum of n entries keeps the exponent and may grow by log2 n."""
    del floor
    (value,) = values
    results = bind(eqn, [value.array])
    return like(results, value, value.bits + math.log2(max(value.array.size, 1)))


def powers(eqn: Any, values: list[Value], floor: Any) -> list[Value]:
    """f(2^e·m) = 2^(p·e)·f(m); for a root, m takes up an odd exponent."""
    name = eqn.primitive.name
    power = {"square": 2, "sqrt": 0.5, "rsqrt": -0.5}.get(name) or eqn.params["y"]
    (value,) = values
    if not is_float(value.array):
        return by_value(eqn, values, floor)
    if value.bits * abs(power) > limit(value.array.dtype):
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


LEAST = 4.0  # bits that a narrow contraction is taken to add: its weights may be small, too


def growth(eqn: Any, values: list[Value]) -> float:
    """How many powers of two a product may add: log2 of the terms of each sum."""
    name, right = eqn.primitive.name, values[1].array
    if name == "dot_general":
        axes = eqn.params["dimension_numbers"][0][1]
        return max(math.log2(max(math.prod(right.shape[axis] for axis in axes), 1)), LEAST)
    if name == "conv_general_dilated":
        features = right.shape[eqn.params["dimension_numbers"].rhs_spec[0]]
        return max(math.log2(max(right.size / max(features, 1), 1)), LEAST)
    numbers = [v.array for v in values if np.ndim(v.array) == 0 and not isinstance(v.array, Tracer)]
    known = [abs(float(number)) for number in numbers]
    return sum(abs(math.log2(n)) for n in known if 0 < n < math.inf) if known else 1.0


def _multiply(eqn: Any, left: Any, right: Any) -> list[Any]:
    if eqn.primitive.name == "conv_general_dilated" and is_better_as_product(eqn, left, right):
        return [as_product(eqn, left, right)]
    return bind(eqn, [left, right])


def products(eqn: Any, values: list[Value], floor: Any) -> list[Value]:
    """f(2^a·m, 2^b·n) = 2^(a±b)·f(m, n): products, quotients, matrix products, convolutions."""
    if not is_float(values[0].array):
        return by_value(eqn, values, floor)
    grown = growth(eqn, values)
    if sum(v.bits for v in values) + grown > 1.5 * limit(values[0].array.dtype):
        values = [rescale(v, floor) if v.bits > 2 else v for v in values]
    left, right = values
    results = _multiply(eqn, left.array, right.array)
    bits = left.bits + right.bits + grown
    inverse = eqn.primitive.name == "div"
    if right.plain:
        return like(results, left, bits)
    if left.plain and not inverse:
        return like(results, right, bits)
    exponent = left.exponent - right.exponent if inverse else left.exponent + right.exponent
    return [rescale(Value(r, exponent, bits), floor) for r in results]


def meetings(eqn: Any, values: list[Value], floor: Any) -> list[Value]:
    """Floating operands are brought to one exponent, then added, joined or chosen from."""
    adding = eqn.primitive.name in ADDITIONS
    arrays, joint = align([v for v in values if is_float(v.array)] or values, floor, adding)
    fresh = iter(arrays)
    results = bind(eqn, [next(fresh) if is_float(v.array) else v.array for v in values])
    return like(results, joint, joint.bits + adding)


def bound(eqn: Any, values: list[Value], floor: Any) -> list[Value]:
    """Bring min(x, c) and clamp to the lower exponent: c must not vanish beside a large x."""
    ranked = [v for v in values if is_float(v.array) and not v.neutral]
    if len({v.plain for v in ranked}) < 2:
        return meetings(eqn, values, floor)
    arrays, joint = align_low(values)
    return like(bind(eqn, arrays), joint, joint.bits)


def compare(eqn: Any, values: list[Value], floor: Any) -> list[Value]:
    """Compare at one exponent."""
    arrays = align(values, floor)[0] if is_float(values[0].array) else [v.array for v in values]
    return [Value(r) for r in bind(eqn, arrays)]


def logarithm(eqn: Any, values: list[Value], floor: Any) -> list[Value]:
    """log(2^e·m) = log m + e·log 2, whatever e is."""
    del floor
    (value,) = values
    (result,) = bind(eqn, [value.array])
    if value.plain:
        return [Value(result)]
    ln2 = jnp.asarray(math.log(2), result.dtype)
    return [Value(result + value.exponent.astype(result.dtype) * ln2)]


def by_value(eqn: Any, values: list[Value], floor: Any) -> list[Value]:
    """Anything else sees the value itself, as in plain JAX."""
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
