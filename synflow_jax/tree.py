"""Pytrees with named leaves: which leaves are prunable, and what they are called."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.tree_util import GetAttrKey, keystr, tree_flatten_with_path

from synflow_jax._types import Params, Prunable
from synflow_jax.packing import Packing, packing_of

UNPRUNABLE = frozenset({"bias", "b", "scale", "mean", "var", "embedding", "pos_embedding", "cls"})
LARGE = 2**20  # entries


class Layers(NamedTuple):
    """The prunable leaves of a tree: a static description, so that jit can compare it."""

    chosen: tuple[bool, ...]  # one entry a leaf of the tree
    paths: tuple[str, ...]  # one entry a prunable leaf
    shapes: tuple[tuple[int, ...], ...]  # in units; a weight is one, unless a pattern joins them
    packing: Packing
    groups: tuple[int, ...] = ()  # one a layer: which compete together; () is all with all
    floors: tuple[int, ...] = ()  # units that every layer keeps at least; () is none
    blocks: tuple[tuple[int, ...], ...] = ()  # shape of each layer's units; () is of weights
    runs: Any = None  # the scope, where runs of neighbours compete

    @property
    def sizes(self) -> tuple[int, ...]:
        """Units of each layer."""
        return tuple(int(np.prod(shape)) for shape in self.shapes)

    @property
    def units(self) -> str:
        """What is counted."""
        return "units" if self.blocks else "weights"

    @property
    def members(self) -> list[list[int]]:
        """The layers of each group."""
        groups = self.groups or (0,) * len(self.paths)
        return [[i for i, own in enumerate(groups) if own == g] for g in range(max(groups) + 1)]


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


def is_prunable(path: str, leaf: Any) -> bool:
    """The default choice of what is pruned: kernels, and no bias, norm or embedding.

    True for a floating leaf of two or more axes that lies in no `batch_stats` and whose last path
    part is none of bias, b, scale, mean, var, embedding, pos_embedding and cls.

    Args:
      path: where the leaf stands, as `a/b/kernel`.
      leaf: an array.

    Returns:
      Whether the leaf is pruned.

    Example:
      >>> import jax.numpy as jnp
      >>> is_prunable("dense/kernel", jnp.ones((3, 2))), is_prunable("dense/bias", jnp.ones(2))
      (True, False)
    """
    parts = path.split("/")
    named = parts[-1] not in UNPRUNABLE and "batch_stats" not in parts
    return named and is_floating(leaf) and len(leaf.shape) >= 2


def find_layers(params: Params, prunable: Prunable) -> Layers:
    """Ask `prunable` about every leaf and describe the ones that it chose."""
    if not callable(prunable):
        raise TypeError(f"prunable must be a function (path, leaf) -> bool, got {prunable!r}")
    pairs = named_leaves(params)
    chosen = tuple(bool(prunable(path, leaf)) and 0 not in leaf.shape for path, leaf in pairs)
    layers = [pair for pair, hit in zip(pairs, chosen, strict=True) if hit]
    for path, leaf in layers:
        if not is_floating(leaf):
            raise TypeError(
                f"prunable chose leaf {path!r} of dtype {leaf.dtype}; only floating leaves "
                "can be pruned: exclude it in prunable(path, leaf)"
            )
    if not layers:
        raise ValueError(_none_chosen(prunable, [path for path, _ in pairs]))
    paths, leaves = zip(*layers, strict=True)
    shapes = tuple(tuple(leaf.shape) for leaf in leaves)
    return Layers(chosen, tuple(paths), shapes, packing_of(list(leaves), shapes))


def _none_chosen(prunable: Prunable, paths: list[str]) -> str:
    if prunable is not is_prunable:
        return f"prunable must choose a leaf, and {prunable} chose none of {paths}"
    return (
        "params has no prunable leaf: the default takes floating leaves of two or more axes that "
        f"are no bias, norm or embedding, and this tree has {paths}; pass "
        "prunable=(path, leaf) -> bool"
    )


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


def plain_network(apply_fn: Callable[..., Any]) -> Callable[..., Any]:
    """Give the network itself where it comes in flow mode, which holds it as `apply_fn`."""
    return getattr(apply_fn, "apply_fn", apply_fn)


def as_function(fn: Callable[..., Any], name: str) -> Function:
    """Wrap a callable; one that cannot be hashed is held behind a function that can."""
    if not callable(fn):
        raise TypeError(f"{name} must be a function, got {type(fn).__name__}")
    try:
        hash(Function(fn).tree_flatten()[1])
    except TypeError:
        return Function(lambda *args: fn(*args))
    return Function(fn)
