"""The order of layers: that in which the network uses them, not that of their names."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.extend.core as jex

from synflow_jax._types import ApplyFn, Params, Prunable
from synflow_jax.inputs import call_on_ones, read_shape
from synflow_jax.scaled.equations import CALLS, body_of
from synflow_jax.tree import (
    as_function,
    find_layers,
    floating_dtype,
    is_prunable,
    named_leaves,
    plain_network,
)


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
    plain = plain_network(apply_fn)
    paths = [path for path, _ in named_leaves(params)]
    inputs = read_shape(shape)
    jax.eval_shape(partial(call_on_ones, as_function(plain, "apply_fn"), inputs=inputs), params)
    x = inputs.ones(floating_dtype(params))
    jaxpr = jax.make_jaxpr(plain)(params, x).jaxpr
    used: dict[str, None] = {}
    fed = [Mark(fed=True)] * (len(jaxpr.invars) - len(paths))
    _follow(jaxpr, [Mark(leaves=(path,)) for path in paths] + fed, used)
    order = tuple(path for path in used if path in layers.paths)
    if not order:
        raise ValueError(f"apply_fn must use its params, and uses none of {list(layers.paths)}")
    return order


def _follow(jaxpr: Any, marks: Sequence[Mark], used: dict[str, None]) -> list[Mark]:
    """Carry marks through the equations, and note leaves as they meet the input."""
    env = dict(zip(jaxpr.invars, marks, strict=True))

    def read(atom: Any) -> Mark:
        return Mark() if isinstance(atom, jex.Literal) else env.get(atom, Mark())

    for eqn in jaxpr.eqns:
        inside = [read(atom) for atom in eqn.invars]
        name = eqn.primitive.name
        if name in CALLS:
            out = _follow(body_of(eqn).jaxpr, inside, used)
        elif name == "scan":
            out = _follow(eqn.params["jaxpr"].jaxpr, inside, used)
        elif name == "cond":
            ways = [_follow(way.jaxpr, inside[1:], used) for way in eqn.params["branches"]]
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
