"""Masks and sparse params in files, in PyTorch's layout, and as sparse matrices.

Reading a file runs no code and checks every size before memory is allocated; a file is written
completely or not at all. Knows formats and layouts; knows no method.
"""

from synflow_jax.files._arrays import load_arrays as load_arrays
from synflow_jax.files._arrays import save_arrays as save_arrays
from synflow_jax.files._blocks import BlockSparse as BlockSparse
from synflow_jax.files._blocks import to_blocks as to_blocks
from synflow_jax.files._format import DTYPES as DTYPES
from synflow_jax.files._format import LONGEST as LONGEST
from synflow_jax.files._format import MASKS as MASKS
from synflow_jax.files._format import SPARSE as SPARSE
from synflow_jax.files._format import decode as decode
from synflow_jax.files._format import encode as encode
from synflow_jax.files._format import write as write
from synflow_jax.files._masks import load_masks as load_masks
from synflow_jax.files._masks import load_sparse as load_sparse
from synflow_jax.files._masks import save_masks as save_masks
from synflow_jax.files._masks import save_sparse as save_sparse
from synflow_jax.files._replacing import file_in_folder as file_in_folder
from synflow_jax.files._replacing import replacing as replacing
from synflow_jax.files._sparse import to_bcoo as to_bcoo
from synflow_jax.files._sparse import to_csr as to_csr
from synflow_jax.files._torch import from_torch as from_torch
from synflow_jax.files._torch import to_torch as to_torch

__all__ = [
    "BlockSparse",
    "from_torch",
    "load_arrays",
    "load_masks",
    "load_sparse",
    "save_arrays",
    "save_masks",
    "save_sparse",
    "to_bcoo",
    "to_blocks",
    "to_csr",
    "to_torch",
]
