"""Layers: the leaves of a tree that are prunable, their names and their shapes."""

import math
from typing import Any, NamedTuple

from synflow_jax.trees import Params, Prunable, Shape, is_weight, named_leaves

UNPRUNABLE = frozenset({"bias", "b", "scale", "mean", "var", "embedding", "pos_embedding", "cls"})


class Layers(NamedTuple):
    """The prunable leaves of a tree: a static description, so that jit can compare it."""

    prunable: tuple[bool, ...]  # one entry a leaf of the tree
    paths: tuple[str, ...]  # one entry a prunable leaf
    shapes: tuple[Shape, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of weights of each layer."""
        return tuple(math.prod(shape) for shape in self.shapes)


def is_prunable(path: str, leaf: Any) -> bool:
    """Whether a leaf is pruned by default: kernels are; biases, norms and embeddings are not.

    True for a floating or complex leaf of two or more axes, unless a part of its path is
    `batch_stats` or the last part is one of bias, b, scale, mean, var, embedding, pos_embedding and
    cls.

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
    return named and is_weight(leaf) and len(leaf.shape) >= 2


def find_layers(params: Params, prunable: Prunable) -> Layers:
    """List the leaves that `prunable` chooses, and check that they can be pruned."""
    if not callable(prunable):
        raise TypeError(f"prunable must be a function (path, leaf) -> bool, got {prunable!r}")
    pairs = named_leaves(params)
    flags = tuple(bool(prunable(path, leaf)) and 0 not in leaf.shape for path, leaf in pairs)
    layers = [pair for pair, hit in zip(pairs, flags, strict=True) if hit]
    for path, leaf in layers:
        if not is_weight(leaf):
            raise TypeError(
                f"prunable chose leaf {path!r} of dtype {leaf.dtype}; only floating and "
                "complex leaves can be pruned: exclude it in prunable(path, leaf)"
            )
    if not layers:
        raise ValueError(_none_chosen(prunable, [path for path, _ in pairs]))
    paths, leaves = zip(*layers, strict=True)
    return Layers(flags, tuple(paths), tuple(tuple(leaf.shape) for leaf in leaves))


def _none_chosen(prunable: Prunable, paths: list[str]) -> str:
    if prunable is not is_prunable:
        return f"prunable must choose a leaf, and {prunable} chose none of {paths}"
    return (
        "params has no prunable leaf: the default takes floating and complex leaves of two or more "
        f"axes that are no bias, norm or embedding, and this tree has {paths}; pass "
        "prunable=(path, leaf) -> bool"
    )
