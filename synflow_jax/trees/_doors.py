"""Arrays of other libraries at the door: converted where NumPy can read them, else refused."""

import inspect
from collections.abc import Callable
from contextlib import nullcontext
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.tree_util import tree_flatten_with_path

from synflow_jax.trees._leaves import path_string

P = ParamSpec("P")
R = TypeVar("R")


def converted(*names: str, shapes: bool = False) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a function take arrays of other libraries in the arguments of these names.

    Args:
      *names: of arguments, each a pytree of arrays or None.
      shapes: whether a jax.ShapeDtypeStruct will do, since no numbers are read.
    """

    def decorate(fn: Callable[P, R]) -> Callable[P, R]:
        places = {name: list(inspect.signature(fn).parameters).index(name) for name in names}

        @wraps(fn)
        def door(*args: P.args, **kwargs: P.kwargs) -> R:
            given: list[Any] = list(args)
            named: dict[str, Any] = dict(kwargs)
            for name, place in places.items():
                if place < len(given):
                    given[place] = as_arrays(given[place], name, shapes)
                elif name in named:
                    named[name] = as_arrays(named[name], name, shapes)
            with small_transfers():
                return fn(*given, **named)  # pyright: ignore[reportCallIssue]

        return door

    return decorate


GUARDS = tuple(
    f"jax_transfer_guard_{way}" for way in ("host_to_device", "device_to_host", "device_to_device")
)


def small_transfers() -> Any:
    """Allow the transfers of counts and verdicts that the library needs, in a `with` block.

    Under jax.transfer_guard("disallow") even jnp.zeros(()) is refused outside of jit. Where the
    user refuses explicit transfers as well, the guard stays.
    """
    levels = {getattr(jax.config, guard, None) for guard in GUARDS}
    return jax.transfer_guard("allow") if levels & {"log", "disallow"} else nullcontext()


def without_gradient(tree: Any) -> Any:
    """Stop the gradients of traced weights: a mask has none, and sorting needs none."""

    def one(leaf: Any) -> Any:
        stops = isinstance(leaf, Tracer) and jnp.issubdtype(leaf.dtype, jnp.inexact)
        return jax.lax.stop_gradient(leaf) if stops else leaf

    return jax.tree.map(one, tree)


def as_arrays(tree: Any, name: str, shapes: bool = False, others: bool = False) -> Any:
    """Convert the leaves that JAX does not take; return a tree without any as it is.

    Arrays of another byte order and those of other libraries (PyTorch's tensors, Keras's variables)
    become NumPy's. Leaves that are no arrays stay, and are refused where arrays are needed.

    Args:
      tree: pytree.
      name: of the argument, for errors.
      shapes: whether a jax.ShapeDtypeStruct will do.
      others: whether strings and objects will do, as in a batch that has them beside its arrays.

    Raises:
      TypeError: a leaf holds no numbers, or NumPy cannot read it.
    """
    if all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(tree)):
        return tree
    pairs, treedef = tree_flatten_with_path(tree)
    leaves = [
        _as_array(leaf, f"{name}: leaf {path_string(path)!r}", shapes, others)
        for path, leaf in pairs
    ]
    if all(new is old for new, (_, old) in zip(leaves, pairs, strict=True)):
        return tree
    return treedef.unflatten(leaves)


def _as_array(leaf: Any, where: str, shapes: bool, others: bool) -> Any:
    """Convert one leaf; `where` names it."""
    if isinstance(leaf, jax.Array) or not hasattr(leaf, "dtype") or not hasattr(leaf, "shape"):
        return leaf
    if isinstance(leaf, jax.ShapeDtypeStruct):
        if shapes:
            return leaf
        raise TypeError(
            f"{where} is a jax.ShapeDtypeStruct, a shape without numbers: pass the arrays "
            "themselves, such as what model.init returns outside of jax.eval_shape"
        )
    if isinstance(leaf, np.ndarray | np.generic):
        return leaf if others and not _holds_numbers(leaf) else _native(leaf, where)
    try:
        found = np.asarray(_on_host(leaf))
    except Exception as error:  # the other library may raise anything
        if others:
            return leaf
        raise TypeError(
            f"{where} is a {_type_name(leaf)} that NumPy cannot read: pass a NumPy or JAX array; "
            f"it said {type(error).__name__}: {error}"
        ) from error
    return _native(found, where)


def _on_host(leaf: Any) -> Any:
    """Take a PyTorch tensor from its graph and its device; leave other arrays as they are."""
    if not (hasattr(leaf, "detach") and hasattr(leaf, "cpu")):
        return leaf
    leaf = leaf.detach().cpu()
    if str(leaf.dtype) == "torch.bfloat16":  # NumPy has no such dtype: by way of exact float32
        return np.asarray(leaf.float()).astype(jnp.bfloat16)
    return leaf


def _holds_numbers(array: Any) -> bool:
    return array.dtype == np.bool_ or jnp.issubdtype(array.dtype, np.number)


def _native(array: Any, where: str) -> Any:
    """Bring numbers into a dtype that JAX takes; refuse anything else."""
    if not _holds_numbers(array):
        raise TypeError(
            f"{where} is an array of dtype {array.dtype}, which holds no numbers of one kind: pass "
            "an array of floats, such as np.asarray(leaf, np.float32)"
        )
    for long, double in ((np.longdouble, np.float64), (np.clongdouble, np.complex128)):
        if array.dtype == long:
            return array.astype(double)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _type_name(leaf: Any) -> str:
    return f"{type(leaf).__module__.split('.')[0]}.{type(leaf).__name__}"
