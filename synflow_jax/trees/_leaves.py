"""Leaves of a pytree: their names, their dtypes, and picking and replacing some of them.

Which leaves are meant is given by flags, one bool a leaf in tree order.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.tree_util import GetAttrKey, keystr, tree_flatten_with_path

LARGE = 2**20  # entries; NumPy makes smaller masks on the host


def path_string(path: tuple[Any, ...]) -> str:
    """Write a key path as `a/b/kernel`, without the `.value` that NNX appends."""
    if len(path) > 1 and path[-1] == GetAttrKey("value"):
        path = path[:-1]
    return keystr(path, simple=True, separator="/")


def named_leaves(tree: Any) -> list[tuple[str, Any]]:
    """List (path, leaf) in tree order; refuse leaves that are not arrays."""
    pairs = [(path_string(path), leaf) for path, leaf in tree_flatten_with_path(tree)[0]]
    for path, leaf in pairs:
        if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
            raise TypeError(
                f"params must be a pytree of arrays: leaf {shown(path)} is a "
                f"{type(leaf).__name__}; keep values that are not arrays outside of params (in "
                "Equinox: eqx.partition)"
            )
    return pairs


def distinct_leaves(tree: Any, name: str) -> dict[str, Any]:
    """Return {path: leaf}; refuse two leaves of one path, as a/b and a → b have."""
    pairs = named_leaves(tree)
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(
            path for path, times in Counter(path for path, _ in pairs).items() if times > 1
        )
        raise ValueError(
            f"{name} must have a different path for each leaf: {shown(twice)} is the path of two"
        )
    return found


LONG = 200  # characters of a name in a message


def clip(text: str, most: int = 2000) -> str:
    """Shorten a text for a message in its middle."""
    half = most // 2
    return text if len(text) <= most else f"{text[:half]} … {text[-half:]}"


def shown(name: Any) -> str:
    """Write a name for a message: in quotation marks, and not longer than a few lines."""
    return repr(clip(str(name), LONG))


def shown_names(names: Sequence[str], most: int = 8) -> str:
    """Write names for a message as a list, at most `most` of them."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{[clip(name, LONG) for name in names[:most]]}{more}"


def listed_names(names: Sequence[str], most: int = 8) -> str:
    """Write names for a message, at most `most` of them."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(clip(name, LONG) for name in names[:most]) + more


def is_floating(leaf: Any) -> bool:
    """Whether a leaf has a real floating dtype, of any width."""
    return jnp.issubdtype(leaf.dtype, jnp.floating)


def is_weight(leaf: Any) -> bool:
    """Whether a leaf has a real or complex floating dtype, so that it can be scored and pruned."""
    return jnp.issubdtype(leaf.dtype, jnp.inexact)


def pick(tree: Any, flags: tuple[bool, ...]) -> list[Any]:
    """List the leaves whose flag is True."""
    return [leaf for leaf, flag in zip(jax.tree.leaves(tree), flags, strict=True) if flag]


def place(tree: Any, flags: tuple[bool, ...], new: list[Any], other: Callable[[Any], Any]) -> Any:
    """Replace the leaves whose flag is True by `new`, in order, and the others by other(leaf)."""
    leaves, treedef = jax.tree.flatten(tree)
    fresh = iter(new)
    pairs = zip(leaves, flags, strict=True)
    return treedef.unflatten([next(fresh) if flag else other(leaf) for leaf, flag in pairs])


def all_true(leaf: Any) -> jax.Array:
    """Make an all-True mask for a leaf, sharded as the leaf is."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jnp.ones(leaf.shape, bool)
    if isinstance(leaf, Tracer) or leaf.size > LARGE or _is_on_several_devices(leaf):
        return jnp.ones_like(leaf, dtype=bool)
    # JAX would compile a program for each new shape, NumPy does not.
    device = leaf.sharding if getattr(leaf, "committed", False) else None
    return jax.device_put(np.ones(leaf.shape, bool), device)


def _is_on_several_devices(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and len(leaf.sharding.device_set) > 1


def widen(tree: Any) -> Any:
    """Cast half-precision leaves to float32; the other leaves are returned unchanged."""

    def one(leaf: Any) -> Any:
        half = hasattr(leaf, "dtype") and is_floating(leaf) and jnp.finfo(leaf.dtype).bits < 32
        return jnp.asarray(leaf, jnp.float32) if half else leaf

    return jax.tree.map(one, tree)


def floating_dtype(tree: Any) -> Any:
    """Return the widest floating dtype among the leaves, float32 if no leaf is floating.

    Where all weights are complex, it is the dtype of their parts.
    """
    leaves = jax.tree.leaves(tree)
    found = [leaf.dtype for leaf in leaves if is_floating(leaf)]
    found = found or [jnp.finfo(leaf.dtype).dtype for leaf in leaves if is_weight(leaf)]
    return max(found, key=lambda dtype: jnp.finfo(dtype).bits, default=jnp.dtype(jnp.float32))
