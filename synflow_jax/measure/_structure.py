"""Leaves that hold many layers: those that a scan over layers runs through."""

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


def stacked_layers(params: Params, apply_fn: ApplyFn, shape: Any) -> dict[str, int]:
    """Find the leaves of shape [L, …] that a scan takes one slice of for each of L layers.

    They are followed from the params into the scan through calls, changes of dtype and changes of
    shape that leave the first axis first.

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
    """Carry the names of leaves through the equations; say which of them come out."""
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
    name, before, after = eqn.primitive.name, eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    if name == "transpose":
        return eqn.params["permutation"][0] == 0
    same = name in ("convert_element_type", "copy", "abs", "reshape", "broadcast_in_dim", "name")
    return same and bool(before) and bool(after) and before[0] == after[0]


class Mark(NamedTuple):
    """What a value is made of: the input, or leaves that have not met it yet."""

    fed: bool = False
    leaves: tuple[str, ...] = ()


def layer_order(
    params: Params, apply_fn: ApplyFn, shape: Any, *, prunable: Prunable = is_prunable
) -> tuple[str, ...]:
    """Name the prunable leaves in the order in which the network uses them.

    A leaf is used where it, or what was made of leaves alone (a cast, a product of two), first
    meets a value that depends on the input. So the first and the last are those to leave out with
    matching(but=[order[0], order[-1]]).

    Args:
      params: any pytree of arrays.
      apply_fn: apply_fn(params, x) -> y, in evaluation mode.
      shape: one example without the batch axis, or a pytree of jax.ShapeDtypeStruct.
      prunable: (path, leaf) -> bool, the leaves to name.

    Returns:
      Paths; a leaf that the network does not use is not among them.

    Raises:
      ValueError: params has no prunable leaf, apply_fn fails on the shape, or it uses no leaf.
      TypeError: apply_fn is no function, or shape is none.

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


def _follow_marks(jaxpr: Any, marks: Sequence[Mark], used: dict[str, None]) -> list[Mark]:
    """Carry marks through the equations, and note leaves as they meet the input."""
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
    leaves = dict.fromkeys(path for mark in marks for path in mark.leaves)
    return Mark(any(mark.fed for mark in marks), tuple(leaves))


def _met(marks: Sequence[Mark], used: dict[str, None]) -> Mark:
    """Note the leaves of an equation that the input takes part in."""
    both = _joined(marks)
    if not both.fed:
        return both
    used.update(dict.fromkeys(both.leaves))
    return Mark(fed=True)


AS_IT_IS = frozenset({"convert_element_type", "mul", "copy", "abs", "stop_gradient"})


class Sides(NamedTuple):
    """Axes of one leaf."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def find_sides(params: Params, apply_fn: ApplyFn, shape: Any) -> dict[str, Sides]:
    """Read from the products and convolutions of a network how its leaves are laid out.

    A leaf that meets none, or is reshaped before, is read as Flax lays kernels out: (…, in, out).
    """
    x = read_shape(shape).ones(floating_dtype(params))
    listing = listed(apply_fn, params, x)
    leaves = named_leaves(params)
    # number -> the leaf, and which of its axes stand where
    known = {
        number: (path, tuple(range(leaf.ndim)))
        for number, (path, leaf) in zip(listing.inputs, leaves, strict=False)
    }
    found: dict[str, Sides] = {}
    for step in listing.every_step():
        for place, number in enumerate(step.operands):
            if number in known:
                path, axes = known[number]
                if step.name in MET:
                    sides = [
                        tuple(sorted(axes[k] for k in side)) for side in MET[step.name](step, place)
                    ]
                    found.setdefault(path, Sides(*sides))
                elif step.name in AS_IT_IS and _ndim(listing, step.results[0]) == len(axes):
                    known.setdefault(step.results[0], known[number])
                elif step.name == "transpose":
                    order = step.eqn.params["permutation"]
                    known[step.results[0]] = path, tuple(axes[k] for k in order)
    flax = {path: Sides((leaf.ndim - 2,), (leaf.ndim - 1,)) for path, leaf in leaves}
    return flax | found


def _ndim(listing: Any, number: int) -> int:
    return len(getattr(listing.avals[number], "shape", ()))


def _of_product(step: Step, place: int) -> tuple[Any, Any]:
    contracted, batch = (pair[place] for pair in step.eqn.params["dimension_numbers"])
    others = [k for k in range(step.eqn.invars[place].aval.ndim) if k not in contracted]
    return (*batch, *contracted), others


def _of_convolution(step: Step, place: int) -> tuple[Any, Any]:
    del place
    out, inside, *_ = step.eqn.params["dimension_numbers"].rhs_spec
    # A group sees its own inputs alone; there are as many in all as there are outputs, mostly.
    grouped = step.eqn.params["feature_group_count"] > 1
    return (out if grouped else inside,), (out,)


MET = {"dot_general": _of_product, "conv_general_dilated": _of_convolution}
