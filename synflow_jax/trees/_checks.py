"""Checks of arguments: each error names the argument, what came, what is allowed, what to do.

Numbers and keys come first, then params, then trees that must fit the params.
"""

import math
from decimal import ROUND_FLOOR, Context
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.tree_util import tree_flatten_with_path

from synflow_jax.trees._leaves import is_floating, is_weight, named_leaves, path_string


def is_traced(*trees: Any) -> bool:
    """Whether any leaf is a tracer, whose value is not known yet."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(trees))


# Numbers and keys.


def check_int(name: str, value: Any, least: int | None = 1) -> None:
    """Refuse anything but a whole number, of at least `least` unless that is None."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, got a {type(value).__name__}")
    if least is not None and value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def check_rho(rho: Any, name: str = "rho") -> None:
    """Refuse anything but a compression ratio: a finite number of at least 1, or a tracer."""
    if is_traced(rho):
        if rho.shape != () or not is_floating(rho):
            raise TypeError(
                f"{name} must be a floating scalar, got a traced {rho.dtype}{rho.shape}: pass a "
                "float"
            )
        return
    try:
        value = None if isinstance(rho, str | bool) else float(rho)
    except (TypeError, ValueError):
        value = None
    if value is None:
        raise TypeError(f"{name} must be a number, at least 1, got a {type(rho).__name__}")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, at least 1, got {value}")
    if value < 1:
        hint = f"; for the density {value!r} pass rho={1 / value:.12g}" if value > 0 else ""
        raise ValueError(
            f"{name} must be at least 1, got {value!r}: it is the compression ratio, "
            f"weights before over weights after{hint}"
        )


def check_key(key: Any) -> None:
    """Refuse anything but one random key, typed or of the old uint32 kind."""
    dtype = getattr(key, "dtype", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    if not typed and dtype != jnp.uint32:
        raise TypeError(
            f"key must be a random key such as jax.random.key(0), got a {type(key).__name__}"
        )
    if len(key.shape) != (0 if typed else 1):
        raise TypeError(f"key must be one random key, got an array of shape {key.shape}")


def write_limit(limit: float) -> str:
    """Write an upper limit with six digits, rounded down, so that what is written is allowed."""
    down = Context(prec=6, rounding=ROUND_FLOOR).create_decimal(limit)
    return f"{float(down):.6g}"


# Params.


def check_finite(params: Any) -> None:
    """Refuse params with NaN or infinity and name the leaves; traced params pass unread."""
    check_devices(params)
    pairs = [(path, leaf) for path, leaf in named_leaves(params) if is_weight(leaf)]
    found = max_abs([leaf for _, leaf in pairs])
    if is_traced(found):
        return
    tops = map(float, jax.device_get(found))
    bad = [path for (path, _), top in zip(pairs, tops, strict=True) if not math.isfinite(top)]
    if bad:
        raise ValueError(f"params must be finite: NaN or infinity in {', '.join(bad)}")


@jax.jit
def max_abs(leaves: list[jax.Array]) -> list[jax.Array]:
    """Compute max|θ| of each leaf, NaN where the leaf holds one."""
    return [jnp.max(jnp.abs(leaf), initial=0) for leaf in leaves]


def check_devices(params: Any) -> None:
    """Refuse params on different sets of devices: one compiled program runs on one set."""
    sets: dict[frozenset[Any], str] = {}
    for path, leaf in named_leaves(params):
        # JAX moves an uncommitted array to where the others are.
        if not is_traced(leaf) and getattr(leaf, "committed", False):
            sets.setdefault(frozenset(leaf.devices()), path)
    if len(sets) > 1:
        (few, path), (many, other) = sorted(sets.items(), key=lambda pair: len(pair[0]))[:2]
        raise ValueError(
            f"params must lie on one set of devices: {path!r} is on {_devices_text(few)} and "
            f"{other!r} is on {_devices_text(many)}; to have a leaf whole on every device of a "
            "mesh, jax.device_put(leaf, NamedSharding(mesh, PartitionSpec()))"
        )


def _devices_text(devices: frozenset[Any]) -> str:
    """Write one device by its name, several by their number."""
    return str(next(iter(devices))) if len(devices) == 1 else f"{len(devices)} devices"


# Trees that must fit the params.


def check_structure(params: Any, other: Any, name: str) -> None:
    """Refuse a tree whose structure is not that of params, and name the leaves that differ."""
    if jax.tree.structure(params) == jax.tree.structure(other):
        return
    mine, theirs = (
        {path_string(path) for path, _ in tree_flatten_with_path(tree)[0]}
        for tree in (params, other)
    )
    more, less = sorted(mine - theirs)[:3], sorted(theirs - mine)[:3]
    where = f"only params has {more}, only {name} has {less}"
    if mine == theirs:
        where = f"the names agree, the containers do not ({type(params).__name__} and "
        where += f"{type(other).__name__} at the top; a FrozenDict is no dict)"
    raise ValueError(f"{name} must have the tree structure of params: {where}")


def check_masks(params: Any, masks: Any, name: str = "masks") -> None:
    """Refuse masks that are not bool, do not fit params, or prune a leaf of whole numbers or bools.

    Leaves that are neither floating nor complex are never pruned: their masks must be all True.
    """
    check_structure(params, masks, name)
    check_bool(masks, name)
    pairs = zip(named_leaves(params), jax.tree.leaves(masks), strict=True)
    for (path, leaf), mask in pairs:
        if tuple(mask.shape) != tuple(leaf.shape):
            raise ValueError(
                f"{name} must have the shapes of params: {path!r} is {tuple(leaf.shape)} "
                f"in params and {tuple(mask.shape)} in {name}"
            )

        if not is_weight(leaf) and not is_traced(mask) and not mask.all():
            raise ValueError(
                f"{name} must be True on leaves that are not floating or complex: {path!r} is "
                f"{leaf.dtype}"
            )


def check_bool(masks: Any, name: str = "masks") -> None:
    """Refuse masks whose leaves are not bool arrays."""
    for path, mask in tree_flatten_with_path(masks)[0]:
        if getattr(mask, "dtype", None) != jnp.bool_:
            found = getattr(mask, "dtype", type(mask).__name__)
            where = path_string(path)
            raise TypeError(f"{name} must be bool arrays (True = keep): {where!r} is {found}")
