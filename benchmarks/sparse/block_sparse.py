"""A Pallas kernel for products with a matrix of which whole blocks are pruned.

Each program of its grid multiplies one tile of the batch by one column of blocks, and reads only
the kept blocks of that column. It is for GPUs, by Triton; the library's own `x @ blocks` is plain
JAX.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from synflow_jax.files import BlockSparse

TILE = 16  # rows of x a program, at least: what tensor cores multiply at once


def _kernel(x: Any, values: Any, rows: Any, ends: Any, out: Any) -> None:
    """Sum the products of one column of blocks, for one tile of the batch."""
    height, column = values.shape[1], pl.program_id(1)

    def add(k: jax.Array, total: jax.Array) -> jax.Array:
        part = x[:, pl.ds(rows[k] * height, height)]
        return total + jnp.dot(part, values[k], preferred_element_type=jnp.float32)

    start = jnp.zeros(out.shape, jnp.float32)
    total = jax.lax.fori_loop(ends[column], ends[column + 1], add, start)
    out[...] = total.astype(out.dtype)


@partial(jax.jit, static_argnames=("interpret", "tile"))
def pallas_product(
    x: jax.Array, blocks: BlockSparse, *, interpret: bool = False, tile: int = TILE
) -> jax.Array:
    """Multiply x (batch, inputs) by kept blocks.

    Args:
      x: inputs a multiple of the blocks' height.
      blocks: of powers of two either way, outputs a multiple of their width.
      interpret: run it in plain JAX, on any device.
      tile: rows of x a program, a power of two.

    Returns:
      The product, (batch, outputs).
    """
    width, count = blocks.values.shape[2], blocks.shape[1] // blocks.values.shape[2]
    ends = jnp.searchsorted(blocks.columns, jnp.arange(count + 1, dtype=jnp.int32))
    whole = -(-len(x) // tile) * tile
    padded = jnp.pad(x, ((0, whole - len(x)), (0, 0)))
    everything = [pl.BlockSpec(memory_space=pl.ANY)] * 3
    product = pl.pallas_call(
        _kernel,
        out_shape=jax.ShapeDtypeStruct((whole, blocks.shape[1]), x.dtype),
        grid=(whole // tile, count),
        in_specs=[pl.BlockSpec((tile, x.shape[1]), lambda i, _: (i, 0)), *everything],
        out_specs=pl.BlockSpec((tile, width), lambda i, j: (i, j)),
        interpret=interpret,
        compiler_params=triton.CompilerParams(),
    )
    return product(padded, blocks.values, blocks.rows, ends.astype(jnp.int32))[: len(x)]
