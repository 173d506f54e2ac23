"""Masked params, m ⊙ θ."""

from typing import Any

import jax
import jax.numpy as jnp

from synflow_jax.trees._checks import check_masks
from synflow_jax.trees._doors import converted
from synflow_jax.trees._leaves import is_weight
from synflow_jax.trees._types import Masks, Params


def masked(params: Params, masks: Masks) -> Params:
    """Return m ⊙ θ without checking the masks; leaves of whole numbers and bools are unchanged."""

    def one(leaf: Any, mask: Any) -> Any:
        return jnp.where(mask, leaf, jnp.zeros_like(leaf)) if is_weight(leaf) else leaf

    return jax.tree.map(one, params, masks)


@converted("params", "masks")
def apply_masks(params: Params, masks: Masks) -> Params:
    """Set pruned weights to zero, m ⊙ θ.

    Args:
      params: any pytree of arrays; not modified.
      masks: bool arrays with the treedef and shapes of params, True = keep.

    Returns:
      params with exact zeros where a mask is False, NaN and infinity included.

    Raises:
      ValueError: masks does not fit params.
      TypeError: a mask is not bool.

    Example:
      >>> import jax.numpy as jnp
      >>> apply_masks({"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([True, False])})["w"].tolist()
      [1.0, 0.0]
    """
    check_masks(params, masks)
    return masked(params, masks)
