"""The structure of a network, read from its trace: stacked layers, their order, axes of kernels."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.extend.core as jex

from synflow_jax.flow import as_network
from synflow_jax.jaxpr import CALLS, Step, body_of, listed, scan_sizes
from synflow_jax.plan import find_layers, is_prunable
from synflow_jax.trees import (
    ApplyFn,
    Params,
    Prunable,
    as_function,
    call_on_ones,
    floating_dtype,
    named_leaves,
    read_shape,
)

# Leaves that hold several layers.


def stacked_layers(params: Params, apply_fn: ApplyFn, shape: Any) -> dict[str, int]:
    """Find the leaves of shape [L, …] that hold L layers: those that a scan slices.

    A leaf is followed from the params to the scan through calls, changes of dtype, and changes of
    shape that keep the leading axis.

    Args:
      params: any pytree of arrays.
      apply_fn: apply_fn(params, x) -> y, in evaluation mode.
      shape: one example without the batch axis, or a pytree of jax.ShapeDtypeStruct.

    Returns:
      path -> L, in tree order.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> def network(p, x):
      ...     return jax.lax.scan(lambda h, w: (h @ w, None), x, p["w"])[0]
      >>> stacked_layers({"w": jnp.ones((3, 2, 2))}, network, (2,))
      {'w': 3}
    """
    plain = as_network(apply_fn).plain
    pairs = named_leaves(params)
    x = read_shape(shape).ones(floating_dtype(params))
    jaxpr = jax.make_jaxpr(plain)(params, x).jaxpr
    found: dict[str, int] = {}
    names: list[str | None] = [path for path, _ in pairs]
    _follow_leaves(jaxpr, names + [None] * (len(jaxpr.invars) - len(pairs)), found)
    return {path: found[path] for path, _ in pairs if path in found}


def _follow_leaves(jaxpr: Any, names: list[str | None], found: dict[str, int]) -> list[str | None]:
    """Follow leaves through a jaxpr; return, for each output, the name of the leaf that it is.

    Args:
      jaxpr: the jaxpr.
      names: the leaf that each input is, None if it is none.
      found: gets path -> L for each leaf that a scan slices.
    """
    env = {v: name for v, name in zip(jaxpr.invars, names, strict=True) if name is not None}

    def read(atom: Any) -> str | None:
        return None if isinstance(atom, jex.Literal) else env.get(atom)

    for eqn in jaxpr.eqns:
        inside = [read(atom) for atom in eqn.invars]
        if not any(inside):
            continue
        out: list[str | None] = [None] * len(eqn.outvars)
        if eqn.primitive.name == "scan":
            first = sum(scan_sizes(eqn))
            found.update({n: eqn.params["length"] for n in inside[first:] if n is not None})
        elif eqn.primitive.name in CALLS:
            out = _follow_leaves(body_of(eqn).jaxpr, inside, found)
        elif len(inside) == 1 and _keeps_first_axis(eqn):
            out = inside
        env.update({v: n for v, n in zip(eqn.outvars, out, strict=True) if n is not None})
    return [read(atom) for atom in jaxpr.outvars]


def _keeps_first_axis(eqn: Any) -> bool:
    """Whether an equation of one operand keeps the leading axis, and so the layers of a stack."""
    name, before, after = eqn.primitive.name, eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    if name == "transpose":
        return eqn.params["permutation"][0] == 0
    same = name in ("convert_element_type", "copy", "abs", "reshape", "broadcast_in_dim", "name")
    return same and bool(before) and bool(after) and before[0] == after[0]


# The order in which layers are used.


def layer_order(
    params: Params, apply_fn: ApplyFn, shape: Any, *, prunable: Prunable = is_prunable
) -> tuple[str, ...]:
    """List the prunable leaves in the order in which the network uses them.

    A leaf is used where it, or a function of leaves alone (a cast, a product of two), first meets a
    value that depends on the input. matching(but=[order[0], order[-1]]) leaves out the first and
    the last layer.

    Args:
      params: any pytree of arrays.
      apply_fn: apply_fn(params, x) -> y, in evaluation mode.
      shape: one example without the batch axis, or a pytree of jax.ShapeDtypeStruct.
      prunable: (path, leaf) -> bool, the leaves to list.

    Returns:
      Paths, without those of leaves that the network does not use.

    Raises:
      ValueError: params has no prunable leaf, apply_fn fails on the shape, or it uses no leaf.
      TypeError: apply_fn is not a function, or shape is not a shape.

    Example:
      >>> import jax.numpy as jnp
      >>> weights = {"in": jnp.ones((2, 3)), "a_head": jnp.ones((3, 1))}
      >>> layer_order(weights, lambda p, x: x @ p["in"] @ p["a_head"], (2,))
      ('in', 'a_head')
    """
    layers = find_layers(params, prunable)
    plain = as_network(apply_fn).plain
    paths = [path for path, _ in named_leaves(params)]
    inputs = read_shape(shape)
    jax.eval_shape(partial(call_on_ones, as_function(plain, "apply_fn"), inputs=inputs), params)
    x = inputs.ones(floating_dtype(params))
    jaxpr = jax.make_jaxpr(plain)(params, x).jaxpr
    used: dict[str, None] = {}
    fed = [Mark(fed=True)] * (len(jaxpr.invars) - len(paths))
    _follow_marks(jaxpr, [Mark(leaves=(path,)) for path in paths] + fed, used)
    order = tuple(path for path in used if path in layers.paths)
    if not order:
        raise ValueError(f"apply_fn must use its params, and uses none of {list(layers.paths)}")
    return order


class Mark(NamedTuple):
    """What a value depends on.

    Attributes:
      fed: whether it depends on the input of the network.
      leaves: if it does not, the leaves that it depends on.
    """

    fed: bool = False
    leaves: tuple[str, ...] = ()


def _follow_marks(jaxpr: Any, marks: Sequence[Mark], used: dict[str, None]) -> list[Mark]:
    """Carry marks through a jaxpr, and add leaves to `used` where they meet the input."""
    env = dict(zip(jaxpr.invars, marks, strict=True))

    def read(atom: Any) -> Mark:
        return Mark() if isinstance(atom, jex.Literal) else env.get(atom, Mark())

    for eqn in jaxpr.eqns:
        inside = [read(atom) for atom in eqn.invars]
        name = eqn.primitive.name
        if name in CALLS:
            out = _follow_marks(body_of(eqn).jaxpr, inside, used)
        elif name == "scan":
            out = _follow_marks(eqn.params["jaxpr"].jaxpr, inside, used)
        elif name == "cond":
            ways = [_follow_marks(way.jaxpr, inside[1:], used) for way in eqn.params["branches"]]
            out = [_joined(marks) for marks in zip(*ways, strict=True)]
        else:
            out = [_met(inside, used)] * len(eqn.outvars)
        env.update(zip(eqn.outvars, out, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _joined(marks: Sequence[Mark]) -> Mark:
    """Return the mark of a value that depends on several."""
    leaves = dict.fromkeys(path for mark in marks for path in mark.leaves)
    return Mark(any(mark.fed for mark in marks), tuple(leaves))


def _met(marks: Sequence[Mark], used: dict[str, None]) -> Mark:
    """Return the mark of a result; if an operand depends on the input, its leaves are used."""
    both = _joined(marks)
    if not both.fed:
        return both
    used.update(dict.fromkeys(both.leaves))
    return Mark(fed=True)


# The input and output axes of kernels.


# Primitives that keep the axes of an operand; mul, if it does not broadcast it.
KEEP_AXES = frozenset({"convert_element_type", "mul", "copy", "abs", "stop_gradient"})


class Sides(NamedTuple):
    """The axes of one kernel over which it has inputs and outputs."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def find_sides(params: Params, apply_fn: ApplyFn, shape: Any) -> dict[str, Sides]:
    """Read the input and output axes of each leaf from the products and convolutions that use it.

    A leaf that is used in none, or is reshaped before, is taken to be in Flax's layout,
    (…, in, out).
    """
    x = read_shape(shape).ones(floating_dtype(params))
    listing = listed(apply_fn, params, x)
    leaves = named_leaves(params)
    # number of a value -> the leaf that it is, and for each axis of the value that of the leaf
    known = {
        number: (path, tuple(range(leaf.ndim)))
        for number, (path, leaf) in zip(listing.inputs, leaves, strict=False)
    }
    found: dict[str, Sides] = {}
    for step in listing.every_step():
        for place, number in enumerate(step.operands):
            if number in known:
                path, axes = known[number]
                if step.name in CONTRACTION_SIDES:
                    sides = [
                        tuple(sorted(axes[k] for k in side))
                        for side in CONTRACTION_SIDES[step.name](step, place)
                    ]
                    found.setdefault(path, Sides(*sides))
                elif step.name in KEEP_AXES and _ndim(listing, step.results[0]) == len(axes):
                    known.setdefault(step.results[0], known[number])
                elif step.name == "transpose":
                    order = step.eqn.params["permutation"]
                    known[step.results[0]] = path, tuple(axes[k] for k in order)
    flax = {path: Sides((leaf.ndim - 2,), (leaf.ndim - 1,)) for path, leaf in leaves}
    return flax | found


def _ndim(listing: Any, number: int) -> int:
    return len(getattr(listing.avals[number], "shape", ()))


def _of_product(step: Step, place: int) -> tuple[Any, Any]:
    """Return (input axes, output axes) of operand `place` of a dot_general."""
    contracted, batch = (pair[place] for pair in step.eqn.params["dimension_numbers"])
    others = [k for k in range(step.eqn.invars[place].aval.ndim) if k not in contracted]
    return (*batch, *contracted), others


def _of_convolution(step: Step, place: int) -> tuple[Any, Any]:
    """Return (input axes, output axes) of the kernel of a convolution."""
    del place
    out, inside, *_ = step.eqn.params["dimension_numbers"].rhs_spec
    # A grouped kernel has only the inputs of a group on its input axis. Its outputs stand for the
    # inputs: mostly there are as many.
    grouped = step.eqn.params["feature_group_count"] > 1
    return (out if grouped else inside,), (out,)


CONTRACTION_SIDES = {"dot_general": _of_product, "conv_general_dilated": _of_convolution}
