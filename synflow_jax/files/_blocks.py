"""Matrices pruned in blocks: only the kept blocks are stored and multiplied."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from synflow_jax.plan import check_pattern, count_units, unit_shape
from synflow_jax.trees import (
    Masks,
    Params,
    Pattern,
    Shape,
    check_masks,
    converted,
    is_traced,
    is_weight,
    named_leaves,
)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["values", "rows", "columns"],
    meta_fields=["shape"],
)
@dataclass(frozen=True, eq=False)
class BlockSparse:
    """The kept blocks of a matrix W (inputs, outputs); `x @ blocks` is x W.

    A pytree, so that products run under jit, vmap and grad: by x, and by the kept values with
    allow_int=True, since rows and columns are whole numbers.

    Attributes:
      values: [kept, rows of a block, columns of a block]; blocks cut off at an edge of W are padded
        with 0.
      rows: [kept], int32: the row of each block, counted in blocks.
      columns: [kept], int32, ascending: the column of each block, counted in blocks.
      shape: of W.
    """

    values: jax.Array
    rows: jax.Array
    columns: jax.Array
    shape: Shape

    __array_ufunc__ = None  # let NumPy's arrays on the left leave the product to this class

    def __rmatmul__(self, x: Any) -> jax.Array:
        """Return x W for x (…, inputs): gather by row, multiply each block, sum by column."""
        x, (inputs, outputs) = jnp.asarray(x), self.shape
        if not x.ndim or x.shape[-1] != inputs:
            raise ValueError(f"x must be (…, {inputs}) to be multiplied, got shape {x.shape}")
        height, width = self.values.shape[1:]
        padded = jnp.pad(x.reshape(-1, inputs), ((0, 0), (0, -inputs % height)))
        cut = padded.reshape(len(padded), -1, height).swapaxes(0, 1)
        parts = jnp.einsum("kbi,kio->kbo", cut[self.rows], self.values)
        count = -(-outputs // width)
        sums = jax.ops.segment_sum(parts, self.columns, count, indices_are_sorted=True)
        product = sums.swapaxes(0, 1).reshape(len(padded), count * width)[:, :outputs]
        return product.reshape(*x.shape[:-1], outputs)

    def todense(self) -> jax.Array:
        """Return W with zeros in place of the pruned blocks."""
        height, width = self.values.shape[1:]
        high, wide = count_units(self.shape, (height, width))
        found = jnp.zeros((high, wide, height, width), self.values.dtype)
        found = found.at[self.rows, self.columns].set(self.values, unique_indices=True)
        padded = found.swapaxes(1, 2).reshape(high * height, wide * width)
        return padded[: self.shape[0], : self.shape[1]]


@converted("params", "masks")
def to_blocks(params: Params, masks: Masks, pattern: Pattern) -> Params:
    """Turn every pruned leaf of two axes into its kept blocks; `x @ leaf` skips the others.

    A block is kept if any of its weights is kept: prune with the same pattern for the fewest
    blocks. `x @ leaf` is the only operation of a BlockSparse that apply_fn may use.

    Args:
      params: any pytree of arrays.
      masks: bool arrays with the treedef and shapes of params, True = keep.
      pattern: such as blocks(64).

    Returns:
      params with a BlockSparse in place of every leaf of two axes, real or complex, whose mask has
      a False; other floating leaves are m ⊙ θ; leaves of whole numbers and bools are unchanged.

    Raises:
      ValueError: masks does not fit params, or pattern does not return the shape of a block.
      TypeError: a mask is not bool, pattern is not a function, or params or masks are traced: call
        it outside of jit.

    Example:
      >>> import jax.numpy as jnp
      >>> from synflow_jax import magnitude
      >>> from synflow_jax.plan import blocks
      >>> params = {"w": jnp.arange(16.0).reshape(4, 4)}
      >>> masks = magnitude(params, 4.0, pattern=blocks(2))
      >>> sparse = to_blocks(params, masks, blocks(2))
      >>> sparse["w"].values.shape, (jnp.ones(4) @ sparse["w"]).tolist()
      ((1, 2, 2), [0.0, 0.0, 24.0, 26.0])
    """
    if is_traced(params, masks):
        raise TypeError("params or masks are traced: call this outside of jit, with arrays")
    check_pattern(pattern)
    check_masks(params, masks)
    pairs = zip(named_leaves(params), jax.tree.leaves(masks), strict=True)
    return jax.tree.structure(params).unflatten(
        [_sparse(path, leaf, np.asarray(mask), pattern) for (path, leaf), mask in pairs]
    )


def _sparse(path: str, leaf: Any, mask: np.ndarray, pattern: Pattern) -> Any:
    """Turn one leaf into its kept blocks, or into m ⊙ θ."""
    if not is_weight(leaf):
        return leaf
    pruned = np.where(mask, leaf, np.zeros((), leaf.dtype))
    if leaf.ndim != 2 or mask.all():
        return jnp.asarray(pruned)
    block = unit_shape(pattern, path, leaf.shape)
    kept = _cut(mask, block).any((2, 3)).T
    columns, rows = np.nonzero(kept)
    values = jnp.asarray(_cut(pruned, block)[rows, columns])
    rows, columns = (jnp.asarray(one, jnp.int32) for one in (rows, columns))
    return BlockSparse(values, rows, columns, tuple(leaf.shape))


def _cut(leaf: np.ndarray, block: Shape) -> np.ndarray:
    """Split a matrix into [blocks down, blocks across, rows, columns], padded with 0."""
    ends = [(0, -length % size) for length, size in zip(leaf.shape, block, strict=True)]
    high, wide = count_units(leaf.shape, block)
    return np.pad(leaf, ends).reshape(high, block[0], wide, block[1]).swapaxes(1, 2)
