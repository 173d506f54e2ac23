"""A function of whole params that takes small ones."""

from typing import Any

import jax
import jax.numpy as jnp

from synflow_jax.compaction._reshape import Axes
from synflow_jax.compaction._shrink import Shrunk
from synflow_jax.compaction._units import WHOLE
from synflow_jax.trees import Params, named_leaves


class Wrapped:
    """fn on small params, traced once for each shape of its other arguments."""

    def __init__(self, fn: Any, outline: Any, gone: tuple[Axes, ...]) -> None:
        self.fn, self.outline, self.gone = fn, outline, gone
        self.traced: dict[Any, Any] = {}

    def __call__(self, params: Params, *rest: Any) -> Any:
        """Run on small params."""
        leaves, treedef = jax.tree.flatten((params, *rest))
        check_small(params, self.outline, self.gone)
        others = [jax.typeof(x) for x in jax.tree.leaves(rest)]
        key = (treedef, *((x.shape, x.dtype, x.weak_type) for x in others))
        if key not in self.traced:
            shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype, weak_type=x.weak_type) for x in others]
            args = (self.outline, *jax.tree.structure(rest).unflatten(shapes))
            small = Shrunk(self.fn, args, [*self.gone, *([None] * len(others))])
            self.traced[key] = jax.jit(small.__call__), small.listing.out_tree
        run, out_tree = self.traced[key]
        return out_tree.unflatten(run(*leaves))


def check_small(params: Params, outline: Any, gone: tuple[Axes, ...]) -> None:
    """Refuse what is not as the small params are."""
    wanted = [tuple(int((ids == WHOLE).sum()) for ids in axes) for axes in gone]
    what = "params must be the small params, as compact returns them"
    _check_shapes(params, outline, wanted, what, "is left of it")


def check_whole(tree: Any, outline: Any) -> None:
    """Refuse what is not as the whole params are."""
    wanted = [tuple(leaf.shape) for leaf in jax.tree.leaves(outline)]
    what = "tree must have the structure and shapes of the whole params"
    _check_shapes(tree, outline, wanted, what, "is its shape there")


def _check_shapes(tree: Any, outline: Any, wanted: list[Any], what: str, there: str) -> None:
    same = jax.tree.structure(tree) == jax.tree.structure(outline)
    found = [tuple(jnp.shape(leaf)) for leaf in jax.tree.leaves(tree)] if same else []
    if found != wanted:
        paths = [path for path, _ in named_leaves(outline)]
        bad = next(
            (row for row in zip(paths, found, wanted, strict=False) if row[1] != row[2]), None
        )
        said = f"{bad[0]!r} is {bad[1]}, and {bad[2]} {there}" if bad else "the trees differ"
        raise ValueError(f"{what}: {said}")
