"""Layers: the leaves of a tree that are prunable, their names, their shapes and their layouts."""

import abc
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np

from synflow_jax.flow import as_network
from synflow_jax.plan._layout import Layout, Stacks, find_stacks, layout_of
from synflow_jax.structure import Reading, read_network
from synflow_jax.trees import (
    ApplyFn,
    Params,
    Prunable,
    Shape,
    converted,
    is_weight,
    listed_names,
    named_leaves,
    read_shape,
    shown,
    shown_names,
)

# Names of leaves that are not kernels, where no trace tells what they are.
VECTORS = frozenset({"bias", "b", "beta", "offset", "scale", "gamma", "mean", "var", "cls"})
STATISTICS = frozenset({"running_mean", "running_var", "moving_mean", "moving_variance"})
TABLES = frozenset({"wte", "wpe", "embed", "embedding", "embeddings"})
Value = TypeVar("Value")


class Layers(NamedTuple):
    """The prunable leaves of a tree: a static description, so that jit can compare it.

    A leaf is one layer, or a stack of several.
    """

    prunable: tuple[bool, ...]  # one entry a leaf of the tree
    paths: tuple[str, ...]  # one entry a prunable leaf
    shapes: tuple[Shape, ...]
    layouts: tuple[Layout, ...]

    @property
    def axes(self) -> tuple[tuple[int, ...], ...]:
        """The axes of each prunable leaf along which it holds several layers; () for one layer."""
        return tuple(at.layers for at in self.layouts)

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of layers in each prunable leaf."""
        return tuple(map(math.prod, self.lengths))

    @property
    def lengths(self) -> tuple[Shape, ...]:
        """The lengths of those axes of each prunable leaf."""
        pairs = zip(self.shapes, self.axes, strict=True)
        return tuple(tuple(shape[axis] for axis in axes) for shape, axes in pairs)

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each layer: its path, or path[i] for layer i of a stack."""
        pairs = zip(self.paths, self.lengths, strict=True)
        return tuple(name for pair in pairs for name in layer_names(*pair))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of weights of each layer."""
        return tuple(map(math.prod, self.of_layers(self.shapes)))

    def of_layers(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """List the shape of each layer, from the shapes of leaves or of grids of their units."""
        pairs = zip(self.layouts, shapes, strict=True)
        return self.spread([at.shape_of_layer(shape) for at, shape in pairs])

    def spread(self, values: Sequence[Value]) -> tuple[Value, ...]:
        """List the value of each layer, from those of the leaves."""
        pairs = zip(values, self.counts, strict=True)
        return tuple(value for value, count in pairs for _ in range(count))


def layer_names(path: str, lengths: Sequence[int]) -> list[str]:
    """List path[i] for each layer of a stack, path[i,j] along two axes; path where it is none."""
    if not lengths:
        return [path]
    return [f"{path}[{','.join(map(str, at))}]" for at in np.ndindex(*lengths)]


def is_prunable(path: str, leaf: Any) -> bool:
    """Whether a leaf looks like a kernel by its name: what is pruned where there is no trace.

    True for a floating or complex leaf of two or more axes, unless its name says otherwise: biases,
    scales and statistics of norms, embeddings, positions, and class and register tokens.

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
    return is_weight(leaf) and len(leaf.shape) >= 2 and not _named_otherwise(path)


def _named_otherwise(path: str) -> bool:
    """Whether the name of a leaf, or of what holds it, is not that of a kernel."""
    *above, name = path.lower().split("/")
    holder = above[-1] if above else ""
    if "batch_stats" in above or name in VECTORS | STATISTICS:
        return True
    if "embed" in name or "token" in name or name in ("rel_bias", "relative_position_bias_table"):
        return True
    if name in ("weight", "w", "g"):
        table = holder in TABLES or holder.startswith(("embed_", "tok_embed", "token_embed"))
        positions = "pos" in holder and "embed" in holder
        return table or positions or "norm" in holder or holder.startswith("ln")
    return False


def find_layers(
    params: Params,
    prunable: Prunable | None = None,
    reading: Reading | None = None,
    stacked: Any = (),
) -> Layers:
    """List the prunable leaves, and check that they can be pruned.

    Args:
      params: any pytree of arrays.
      prunable: (path, leaf) -> bool; None takes the kernels.
      reading: of the network, which tells kernels from other leaves; None tells them by name.
      stacked: the leaves that hold several layers; empty takes those that the trace shows.
    """
    if prunable is not None and not callable(prunable):
        raise TypeError(f"prunable must be a function (path, leaf) -> bool, got {prunable!r}")
    pairs = named_leaves(params)
    stacks = find_stacks(pairs, stacked, reading)
    chosen = choose(prunable, reading, stacks)
    flags = tuple(bool(chosen(path, leaf)) and 0 not in leaf.shape for path, leaf in pairs)
    layers = [pair for pair, hit in zip(pairs, flags, strict=True) if hit]
    for path, leaf in layers:
        if not is_weight(leaf):
            raise TypeError(
                f"prunable chose leaf {shown(path)} of dtype {leaf.dtype}; only floating and "
                "complex leaves can be pruned: exclude it in prunable(path, leaf)"
            )
    if not layers:
        raise ValueError(_none_chosen(prunable, [path for path, _ in pairs], reading))
    paths, leaves = zip(*layers, strict=True)
    shapes = tuple(tuple(leaf.shape) for leaf in leaves)
    layouts = tuple(layout_of(path, leaf.ndim, stacks, reading) for path, leaf in layers)
    return Layers(flags, tuple(paths), shapes, layouts)


def choose(
    prunable: Prunable | None, reading: Reading | None, stacks: Stacks | None = None
) -> Prunable:
    """Return what decides: the user's function, or the trace, or names where there is none."""
    default = Named(tuple(stacks.items())) if stacks else is_prunable
    default = default if reading is None else Kernels(_kernels_of(reading))
    if prunable is None:
        return default
    return prunable.above(default) if isinstance(prunable, Narrowing) else prunable


def _kernels_of(reading: Reading) -> frozenset[str]:
    """List the kernels of a trace, and what is named as one where an unknown operation hides it."""
    unclear = (use for use in reading.uses if use.role == "unclear" and len(use.shape) >= 2)
    return reading.kernels.union(u.path for u in unclear if not _named_otherwise(u.path))


@dataclass(frozen=True)
class Kernels:
    """The leaves of these paths; equal ones are equal, so that they share compiled programs."""

    paths: frozenset[str]

    def __call__(self, path: str, leaf: Any) -> bool:
        """Whether a leaf is one of them."""
        del leaf
        return path in self.paths


@dataclass(frozen=True)
class Named:
    """What looks like a kernel by its name, where the leaves of these paths hold several layers."""

    stacked: tuple[tuple[str, tuple[int, ...]], ...]

    def __call__(self, path: str, leaf: Any) -> bool:
        """Whether a leaf is one of them, or each layer of it is."""
        axes = dict(self.stacked).get(path, ())
        return is_prunable(path, leaf) and len(leaf.shape) - len(axes) >= 2


class Narrowing(abc.ABC):
    """A choice of leaves that takes away from the default."""

    @abc.abstractmethod
    def above(self, default: Prunable) -> Prunable:
        """Return the choice among the leaves that the default takes."""

    def hint(self, paths: Sequence[str]) -> str:
        """Return what an error on an empty choice adds about its cause; by default nothing."""
        del paths
        return ""


@converted("params", shapes=True)
def kernels(params: Params, apply_fn: ApplyFn, shape: Any) -> Kernels:
    """Find the leaves that a network uses as kernels: what methods with an apply_fn prune.

    A kernel is a floating leaf of two or more axes that is contracted with a signal (by a matrix
    product or a convolution), is not looked up by whole numbers, not added to a signal, and not
    multiplied with it entry by entry. Slices of a stack of layers count by themselves. To compare
    methods, pass the result to all of them as `prunable`.

    Args:
      params: any pytree of arrays.
      apply_fn: apply_fn(params, x) -> y, in evaluation mode.
      shape: one example without the batch axis, or a pytree of jax.ShapeDtypeStruct.

    Returns:
      A function (path, leaf) -> bool, for the argument `prunable`.

    Raises:
      ValueError: apply_fn fails on an example of this shape.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> weights = {"table": jnp.ones((9, 2)), "out": jnp.ones((2, 3))}
      >>> def network(p, tokens):
      ...     return p["table"][tokens].sum(1) @ p["out"]
      >>> found = kernels(weights, network, jax.ShapeDtypeStruct((4,), jnp.int32))
      >>> sorted(found.paths)
      ['out']
    """
    return Kernels(_kernels_of(read_structure(params, apply_fn, shape)))


def read_structure(params: Params, apply_fn: ApplyFn, shape: Any) -> Reading:
    """Read the structure of the user's own network, whether it is in flow mode or not."""
    return read_network(as_network(apply_fn).plain, params, read_shape(shape))


def _none_chosen(prunable: Prunable | None, paths: list[str], reading: Reading | None) -> str:
    if prunable is not None:
        hint = prunable.hint(paths) if isinstance(prunable, Narrowing) else ""
        return (
            f"prunable must choose a leaf, and {prunable} chose none of {shown_names(paths)}{hint}"
        )
    if reading is not None:
        if all(use.role == "unused" for use in reading.uses):
            return f"apply_fn must use its params, and uses none of {shown_names(paths)}"
        why = listed_names([f"{use.path} ({use.why})" for use in reading.uses])
        return (
            "params has no prunable leaf: the default takes floating leaves of two or more axes "
            f"that apply_fn contracts with a signal, and this tree has {why}; pass "
            "prunable=(path, leaf) -> bool"
        )
    return (
        "params has no prunable leaf: the default takes floating and complex leaves of two or more "
        f"axes that are no bias, norm or embedding, and this tree has {shown_names(paths)}; pass "
        "prunable=(path, leaf) -> bool"
    )
