"""Pruned leaves as sparse arrays of JAX and of SciPy: the kept weights and their indices."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from synflow_jax.trees import (
    Masks,
    Params,
    check_masks,
    converted,
    is_traced,
    is_weight,
    named_leaves,
)


@converted("params", "masks")
def to_bcoo(params: Params, masks: Masks) -> Params:
    """Turn every pruned leaf of two or more axes into a jax.experimental.sparse.BCOO array.

    The array has the axes of the leaf, all of them sparse. Kept weights that are 0 are stored, so
    that the number of stored entries depends on the masks alone.

    Args:
      params: any pytree of arrays.
      masks: bool arrays with the treedef and shapes of params, True = keep.

    Returns:
      params with a BCOO in place of every leaf of two or more axes, real or complex, whose mask has
      a False; other floating leaves are m ⊙ θ; leaves of whole numbers and bools are unchanged.

    Raises:
      ValueError: masks does not fit params.
      TypeError: a mask is not bool, or params or masks are traced: call it outside of jit.

    Example:
      >>> import jax.numpy as jnp
      >>> params = {"w": jnp.array([[1.0, 2.0], [3.0, 4.0]])}
      >>> sparse = to_bcoo(params, {"w": jnp.array([[True, False], [False, True]])})
      >>> sparse["w"].nse, (jnp.ones(2) @ sparse["w"]).tolist()
      (2, [1.0, 4.0])
    """
    return _each(params, masks, _bcoo, jnp.asarray)


@converted("params", "masks")
def to_csr(params: Params, masks: Masks) -> Params:
    """Turn every pruned leaf of two or more axes into a scipy.sparse.csr_array.

    SciPy's arrays have two axes. Of a leaf with more, all axes but the last are flattened into one:
    a convolution of Flax becomes (window times input, output). Kept weights that are 0 are stored.

    Args:
      params: any pytree of arrays; pruned leaves in float32, float64 or complex.
      masks: bool arrays with the treedef and shapes of params, True = keep.

    Returns:
      params with a csr_array in place of every leaf of two or more axes, real or complex, whose
      mask has a False; other floating leaves are m ⊙ θ as NumPy arrays; leaves of whole numbers and
      bools are unchanged.

    Raises:
      ValueError: masks does not fit params.
      TypeError: a mask is not bool, params or masks are traced, or a pruned leaf has a dtype that
        SciPy does not support.

    Example:
      >>> import numpy as np
      >>> params = {"w": np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)}
      >>> sparse = to_csr(params, {"w": np.array([[True, False], [False, True]])})
      >>> sparse["w"].nnz, (sparse["w"].T @ np.ones(2, np.float32)).tolist()
      (2, [1.0, 4.0])
    """
    return _each(params, masks, _csr, np.asarray)


def _each(
    params: Params, masks: Masks, sparse: Callable[..., Any], dense: Callable[[Any], Any]
) -> Params:
    """Apply `sparse` to pruned leaves of two or more axes, and `dense` to m ⊙ θ of the others."""
    if is_traced(params, masks):
        raise TypeError("params or masks are traced: call this outside of jit, with arrays")
    check_masks(params, masks)

    def one(path: str, leaf: Any, mask: Any) -> Any:
        if not is_weight(leaf):
            return leaf
        leaf, mask = np.asarray(leaf), np.asarray(mask)
        if leaf.ndim >= 2 and not mask.all():
            return sparse(path, leaf, mask)
        return dense(np.where(mask, leaf, np.zeros((), leaf.dtype)))

    leaves = zip(named_leaves(params), jax.tree.leaves(masks), strict=True)
    new = [one(path, leaf, mask) for (path, leaf), mask in leaves]
    return jax.tree.structure(params).unflatten(new)


def _bcoo(_: str, leaf: np.ndarray, mask: np.ndarray) -> Any:
    from jax.experimental.sparse import BCOO

    pair = jnp.asarray(leaf[mask]), jnp.asarray(np.argwhere(mask), jnp.int32)
    return BCOO(pair, shape=leaf.shape, indices_sorted=True, unique_indices=True)


def _csr(path: str, leaf: np.ndarray, mask: np.ndarray) -> Any:
    from scipy.sparse import csr_array

    if leaf.dtype not in (np.float32, np.float64, np.complex64, np.complex128):
        raise TypeError(f"params: SciPy has no {leaf.dtype}: cast {path!r} to float32")
    rows = mask.reshape(-1, mask.shape[-1])
    ends = np.concatenate([[0], np.cumsum(np.count_nonzero(rows, axis=1))])
    return csr_array((leaf[mask], np.nonzero(rows)[1], ends), shape=rows.shape)
