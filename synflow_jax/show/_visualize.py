"""The picture of a network before pruning, masked, and compact: its numbers, measured and drawn."""

from os import PathLike
from pathlib import Path
from typing import Any

import jax
import numpy as np

from synflow_jax.compaction import compact
from synflow_jax.files import file_in_folder, replacing
from synflow_jax.flow import as_network
from synflow_jax.measure import Sides, find_sides, flow_shares, layer_order
from synflow_jax.show._drawing import Layer, Network, draw
from synflow_jax.trees import (
    ApplyFn,
    Masks,
    Params,
    Prunable,
    Scores,
    check_masks,
    converted,
    named_leaves,
)

SUFFIXES = (".svg", ".png", ".pdf")
DPI = 160


@converted("params", "masks", shapes=True)
def visualize(
    params: Params,
    masks: Masks,
    apply_fn: ApplyFn,
    shape: Any,
    path: Any = None,
    *,
    prunable: Prunable | None = None,
) -> Any:
    """Draw a network before pruning, masked, and compact: widths, kept weights and flow by layer.

    Each prunable layer, in the order of use, is a band from its input units to its output units.
    Its height is the square root of the number of units; the part of units without flow is grey.
    The blue is the darker the larger the density of the layer, on a log scale. A bar at the end of
    each layer shows the flow shares of its output units, with the number of units that have flow
    above it. Each row names the weights of these layers, the multiply-adds of one example, and the
    flow.

    Args:
      params: any pytree of arrays.
      masks: bool tree with the treedef of params, True = keep.
      apply_fn: apply_fn(params, x) -> y, in evaluation mode; with `flow_mode` of it, the flow is
        that of flow mode.
      shape: one example without the batch axis, or a pytree of jax.ShapeDtypeStruct.
      path: the .svg, .png or .pdf file to make or replace; None only draws.
      prunable: (path, leaf) -> bool, the layers to draw.

    Returns:
      A matplotlib Figure.

    Raises:
      ValueError: masks does not fit params, the network uses no prunable leaf, or path has another
        suffix.
      TypeError: masks is not bool, params or masks are traced, or path is not a path.
      FileNotFoundError: the folder of path does not exist.
      IsADirectoryError: path is a folder.
      ImportError: matplotlib is not installed.

    Example:
      >>> import jax.numpy as jnp
      >>> weights = {"v": jnp.ones((2, 3)), "w": jnp.ones((3, 1))}
      >>> masks = {"v": jnp.ones((2, 3), bool), "w": jnp.array([[True], [False], [False]])}
      >>> figure = visualize(weights, masks, lambda p, x: x @ p["v"] @ p["w"], (2,))
      >>> [axes.get_title(loc="right").split(" ·")[0] for axes in figure.axes[:3]]
      ['9 weights', '9 weights, 7 kept', '3 weights (3 × fewer)']
    """
    _check_path(path)
    check_masks(params, masks)
    small = compact(params, masks, apply_fn, shape)
    order = layer_order(params, apply_fn, shape, prunable=prunable)
    found = find_sides(params, as_network(apply_fn).plain, shape)
    sides = {name: found[name] for name in order}
    all_kept = jax.tree.map(lambda leaf: np.ones(leaf.shape, bool), params)
    dense_flow, dense_shares = flow_shares(params, apply_fn, shape, all_kept)
    flow, shares = flow_shares(params, apply_fn, shape, masks)
    before, after = small.multiply_adds
    figure = draw(
        [
            Network("dense", _layers(all_kept, dense_shares, sides), before, float(dense_flow)),
            Network("masked", _layers(masks, shares, sides), before, float(flow)),
            Network("compact", _layers(small.masks, small.take(shares), sides), after, float(flow)),
        ]
    )
    return figure if path is None else _saved(figure, path)


def _layers(masks: Masks, shares: Scores, sides: dict[str, Sides]) -> tuple[Layer, ...]:
    """Count the kept weights and sum the flow shares by unit, for each layer in order of use."""
    found = {
        path: (np.asarray(mask), np.asarray(share, np.float64))
        for (path, mask), share in zip(named_leaves(masks), jax.tree.leaves(shares), strict=True)
        if path in sides
    }
    return tuple(
        Layer(path, mask.size, int(mask.sum()), *(_units(share, side) for side in sides[path]))
        for path, (mask, share) in ((path, found[path]) for path in sides)
    )


def _units(share: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Sum the flow shares of a kernel by unit, along the given axes."""
    others = tuple(k for k in range(share.ndim) if k not in axes)
    return share.sum(others).reshape(-1)


def _saved(figure: Any, path: Any) -> Any:
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=DPI)
    return figure


def _check_path(path: Any) -> None:
    """Refuse a path that no picture can be written to, before anything is computed."""
    if path is None:
        return
    if not isinstance(path, str | PathLike):
        raise TypeError(f"path must be the name of a file, got a {type(path).__name__}")
    if Path(path).suffix.lower() not in SUFFIXES:
        raise ValueError(f"path must end in one of {', '.join(SUFFIXES)}, got {str(path)!r}")
    file_in_folder(path)
