"""Pytrees with named leaves: which leaves are prunable, and what they are called."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.tree_util import GetAttrKey, keystr, tree_flatten_with_path

LARGE = 2**20  # entries


def path_string(path: tuple[Any, ...]) -> str:
    """Write a key path as `a/b/kernel`; the `value` that NNX puts last is dropped."""
    if len(path) > 1 and path[-1] == GetAttrKey("value"):
        path = path[:-1]
    return keystr(path, simple=True, separator="/")


def named_leaves(tree: Any) -> list[tuple[str, Any]]:
    """List (path, leaf) in tree order; every leaf must be an array."""
    pairs = [(path_string(path), leaf) for path, leaf in tree_flatten_with_path(tree)[0]]
    for path, leaf in pairs:
        if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
            raise TypeError(
                f"params must be a pytree of arrays: leaf {path!r} is a {type(leaf).__name__}; "
                "keep what is no array outside of params (in Equinox: eqx.partition)"
            )
    return pairs


def is_floating(leaf: Any) -> bool:
    """Whether a leaf holds real floating-point numbers of any width."""
    return jnp.issubdtype(leaf.dtype, jnp.floating)


def pick(tree: Any, chosen: tuple[bool, ...]) -> list[Any]:
    """List the chosen leaves of a tree."""
    return [leaf for leaf, hit in zip(jax.tree.leaves(tree), chosen, strict=True) if hit]


def place(tree: Any, chosen: tuple[bool, ...], new: list[Any], other: Callable[[Any], Any]) -> Any:
    """Put `new` in the place of the chosen leaves and other(leaf) in that of the rest."""
    leaves, treedef = jax.tree.flatten(tree)
    fresh = iter(new)
    pairs = zip(leaves, chosen, strict=True)
    return treedef.unflatten([next(fresh) if hit else other(leaf) for leaf, hit in pairs])


def all_true(leaf: Any) -> jax.Array:
    """Keep a whole leaf, laid out across devices as the leaf is."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jnp.ones(leaf.shape, bool)
    if isinstance(leaf, Tracer) or leaf.size > LARGE or _is_spread(leaf):
        return jnp.ones_like(leaf, dtype=bool)
    # Each new shape would be a program to compile, which NumPy needs not.
    device = leaf.sharding if getattr(leaf, "committed", False) else None
    return jax.device_put(np.ones(leaf.shape, bool), device)


def _is_spread(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and len(leaf.sharding.device_set) > 1


def widen(tree: Any) -> Any:
    """Turn half-precision leaves into float32 and leave all others as they are."""

    def one(leaf: Any) -> Any:
        half = hasattr(leaf, "dtype") and is_floating(leaf) and jnp.finfo(leaf.dtype).bits < 32
        return jnp.asarray(leaf, jnp.float32) if half else leaf

    return jax.tree.map(one, tree)


def floating_dtype(tree: Any) -> Any:
    """Name the widest floating dtype among the leaves (float32 where there is none)."""
    found = [leaf.dtype for leaf in jax.tree.leaves(tree) if is_floating(leaf)]
    return max(found, key=lambda dtype: jnp.finfo(dtype).bits, default=jnp.dtype(jnp.float32))
