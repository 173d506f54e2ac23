"""Pytrees with named leaves: which leaves are prunable, and what they are called."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np


@jax.tree_util.register_pytree_node_class
class Function:
    """A function that jit compares by value: what it holds of arrays is traced, the rest static.

    A plain function is one static part, taken to be pure: what it closes over must not change. A
    `jax.tree_util.Partial`, or any other callable pytree, gives its arrays as leaves, so that new
    arrays of the same shapes reuse a compiled program.
    """

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn

    def __call__(self, *args: Any) -> Any:
        """Call the function that is held."""
        return self.fn(*args)

    def __eq__(self, other: object) -> bool:
        """Two are equal where their static parts are, and their arrays are the same."""
        if not isinstance(other, Function):
            return False
        (mine, static), (theirs, rest) = self.tree_flatten(), other.tree_flatten()
        return static == rest and all(a is b for a, b in zip(mine, theirs, strict=True))

    def __hash__(self) -> int:
        """Equal functions hash alike."""
        return hash(self.tree_flatten()[1])

    def tree_flatten(self) -> tuple[list[Any], Any]:
        """Split the callable in its arrays and in all that is static."""
        leaves, treedef = jax.tree.flatten(self.fn)
        traced = [isinstance(leaf, jax.Array | np.ndarray) for leaf in leaves]
        pairs = list(zip(leaves, traced, strict=True))
        static = tuple(None if hit else leaf for leaf, hit in pairs)
        return [leaf for leaf, hit in pairs if hit], (treedef, tuple(traced), static)

    @classmethod
    def tree_unflatten(cls, aux: Any, children: Any) -> "Function":
        """Put the callable together again."""
        treedef, traced, static = aux
        arrays = iter(children)
        pairs = zip(static, traced, strict=True)
        return cls(treedef.unflatten([next(arrays) if hit else leaf for leaf, hit in pairs]))


def as_function(fn: Callable[..., Any], name: str) -> Function:
    """Wrap a callable; one that cannot be hashed is held behind a function that can."""
    if not callable(fn):
        raise TypeError(f"{name} must be a function, got {type(fn).__name__}")
    try:
        hash(Function(fn).tree_flatten()[1])
    except TypeError:
        return Function(lambda *args: fn(*args))
    return Function(fn)
