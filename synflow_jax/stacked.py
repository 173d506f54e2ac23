"""Leaves that hold many layers: those that a scan over layers runs through."""

from typing import Any

import jax
import jax.extend.core as jex

from synflow_jax._types import ApplyFn, Params
from synflow_jax.inputs import read_shape
from synflow_jax.scaled.equations import CALLS, body_of, scan_sizes
from synflow_jax.tree import floating_dtype, named_leaves, plain_network


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
    plain = plain_network(apply_fn)
    pairs = named_leaves(params)
    x = read_shape(shape).ones(floating_dtype(params))
    jaxpr = jax.make_jaxpr(plain)(params, x).jaxpr
    found: dict[str, int] = {}
    names: list[str | None] = [path for path, _ in pairs]
    _follow(jaxpr, names + [None] * (len(jaxpr.invars) - len(pairs)), found)
    return {path: found[path] for path, _ in pairs if path in found}


def _follow(jaxpr: Any, names: list[str | None], found: dict[str, int]) -> list[str | None]:
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
            out = _follow(body_of(eqn).jaxpr, inside, found)
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
