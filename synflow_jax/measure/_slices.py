"""The layers of a leaf that holds several."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from synflow_jax.plan import Layers, layer_names


def layers_of(path: str, leaf: Any, axes: tuple[int, ...]) -> list[tuple[str, Any]]:
    """List (path[i], layer i) of a leaf with axes of layers; (path, leaf) without."""
    if not axes:
        return [(path, leaf)]
    front = jnp.moveaxis(leaf, axes, range(len(axes)))
    lengths = front.shape[: len(axes)]
    names = layer_names(path, lengths)
    return [(name, front[at]) for name, at in zip(names, np.ndindex(*lengths), strict=True)]


def each_layer(layers: Layers, leaves: Sequence[Any]) -> list[tuple[str, Any]]:
    """List (name, layer) of all layers, from the prunable leaves."""
    trios = zip(layers.paths, leaves, layers.axes, strict=True)
    return [part for trio in trios for part in layers_of(*trio)]
