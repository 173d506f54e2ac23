"""The layers of a leaf that holds several."""

from typing import Any

import jax.numpy as jnp


def layers_of(path: str, leaf: Any, axis: int | None) -> list[tuple[str, Any]]:
    """List (path[i], layer i) of a leaf with an axis of layers; (path, leaf) without."""
    if axis is None:
        return [(path, leaf)]
    front = jnp.moveaxis(leaf, axis, 0)
    return [(f"{path}[{i}]", front[i]) for i in range(len(front))]
