"""Functions as arguments of jit: equal functions share one compiled program."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

# Options of XLA for programs that run a few times only; every backend takes them.
QUICK: dict[str, Any] = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}


@jax.tree_util.register_pytree_node_class
class Function:
    """A callable as a pytree: the arrays it holds are traced, everything else is static.

    A plain function is static and taken to be pure: what it closes over must not change. The
    arrays in a `jax.tree_util.Partial`, or in any other callable pytree, are leaves, so that new
    arrays of the same shapes reuse a compiled program.
    """

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn

    def __call__(self, *args: Any) -> Any:
        """Call the wrapped function."""
        return self.fn(*args)

    def __eq__(self, other: object) -> bool:
        """Whether the static parts are equal and the arrays are the same objects."""
        if not isinstance(other, Function):
            return False
        (mine, static), (theirs, rest) = self.tree_flatten(), other.tree_flatten()
        return static == rest and all(a is b for a, b in zip(mine, theirs, strict=True))

    def __hash__(self) -> int:
        """Hash the static part."""
        return hash(self.tree_flatten()[1])

    def tree_flatten(self) -> tuple[list[Any], Any]:
        """Split the callable into its arrays and its static part."""
        leaves, treedef = jax.tree.flatten(self.fn)
        traced = [isinstance(leaf, jax.Array | np.ndarray) for leaf in leaves]
        pairs = list(zip(leaves, traced, strict=True))
        static = tuple(None if is_array else leaf for leaf, is_array in pairs)
        return [leaf for leaf, is_array in pairs if is_array], (treedef, tuple(traced), static)

    @classmethod
    def tree_unflatten(cls, aux: Any, children: Any) -> "Function":
        """Rebuild the callable from its static part and its arrays."""
        treedef, traced, static = aux
        arrays = iter(children)
        pairs = zip(static, traced, strict=True)
        leaves = [next(arrays) if is_array else leaf for leaf, is_array in pairs]
        return cls(treedef.unflatten(leaves))


def as_function(fn: Callable[..., Any], name: str) -> Function:
    """Wrap a callable as a `Function`; refuse anything else.

    A callable that cannot be hashed is called from a lambda, which can: it is compiled anew each
    time that it is wrapped.
    """
    if not callable(fn):
        raise TypeError(f"{name} must be a function, got {type(fn).__name__}")
    try:
        hash(Function(fn).tree_flatten()[1])
    except TypeError:
        return Function(lambda *args: fn(*args))
    return Function(fn)


@jax.jit
def call_traced(function: Function, *args: Any) -> Any:
    """Call a function so that equal calls share one trace, whatever is compiled around them."""
    return function(*args)
