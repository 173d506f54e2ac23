"""Masks, and params without their pruned weights, in one small file that is safe to read.

Reading a file runs no code. The sizes that it claims are checked against `like`, or against
`limit`, before memory is allocated. A file is written completely or not at all.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from synflow_jax.files._format import DTYPES, MASKS, SPARSE, Entry, encode, read, write
from synflow_jax.trees import (
    Masks,
    Params,
    check_bool,
    check_masks,
    clip,
    converted,
    distinct_leaves,
    is_traced,
    shown,
)

LIMIT = 2**30  # bytes


@converted("masks")
def save_masks(path: Any, masks: Masks) -> None:
    """Write masks to one file, at most N/8 bytes for N entries.

    A leaf of n entries with k kept takes ⌈n/8⌉ bytes (a bit an entry) or k + Σ⌊gap/255⌋ bytes (one
    a kept entry, and one more for each 255 pruned entries in a row), whichever is less, and none if
    all entries are kept. The file has 48 bytes more, and a header with the paths and shapes.

    Args:
      path: the file to make or replace, in a folder that exists.
      masks: bool arrays in any pytree, no two with the same path; True = keep.

    Returns:
      Nothing. If writing fails or is killed, a file that was at path is unchanged.

    Raises:
      TypeError: a mask is not bool, or is traced: call it outside of jit.
      ValueError: two leaves have the same path, or a mask lies on devices of other processes.

    Example:
      >>> import os, tempfile
      >>> import jax.numpy as jnp
      >>> masks = {"w": jnp.arange(8000).reshape(100, 80) % 100 == 0, "b": jnp.full(80, True)}
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     save_masks(f"{folder}/masks", masks)
      ...     os.path.getsize(f"{folder}/masks") < 200
      ...     int(load_masks(f"{folder}/masks", masks)["w"].sum())
      True
      80
    """
    leaves = _leaves(masks, "masks")
    check_bool(masks)
    entries, codes = [], []
    for name, leaf in leaves:
        mask = np.asarray(leaf)
        codes.append(encode(mask))
        kept = int(np.count_nonzero(mask))
        entries.append(Entry(name, mask.shape, kept, len(codes[-1]), None))
    write(path, MASKS, entries, codes)


def load_masks(path: Any, like: Any = None, *, limit: int = LIMIT) -> Masks:
    """Read masks that save_masks wrote; the file need not be trusted.

    Args:
      path: a file of save_masks.
      like: the params or masks whose paths and shapes the file must have, as arrays or as
        jax.ShapeDtypeStruct; None accepts any.
      limit: without like, the most bytes that the masks may take in memory.

    Returns:
      A bool tree with the treedef of like, each mask sharded as its leaf is (a NumPy array where
      the leaf is one); without like, a flat {path: NumPy array}.

    Raises:
      ValueError: the file is damaged, is of another kind, does not fit like, or asks for more than
        limit; the message names the file.

    Example:
      >>> import tempfile
      >>> import jax, jax.numpy as jnp
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     save_masks(f"{folder}/masks", {"layer": {"w": jnp.array([True, False, True])}})
      ...     like = {"layer": {"w": jax.ShapeDtypeStruct((3,), jnp.float32)}}
      ...     loaded = load_masks(f"{folder}/masks", like)["layer"]["w"].tolist()
      ...     loaded, list(load_masks(f"{folder}/masks"))
      ([True, False, True], ['layer/w'])
    """
    leaves = None if like is None else _leaves(like, "like")
    found = {
        entry.path: flat.reshape(entry.shape)
        for entry, flat, _ in read(path, MASKS, *_checks(leaves, limit))
    }
    return found if leaves is None else _tree(found, leaves, like)


@converted("params", "masks")
def save_sparse(path: Any, params: Params, masks: Masks) -> None:
    """Write masks and the kept weights to one file; pruned weights are not stored.

    The file is as large as that of save_masks, plus the bytes of the kept values (every entry of a
    leaf that is not pruned is one), plus the names of the dtypes in the header.

    Args:
      path: the file to make or replace, in a folder that exists.
      params: any pytree of arrays, no two with the same path, of any dtype but random keys and
        integers of 4 bits or fewer.
      masks: bool arrays with the treedef and shapes of params, True = keep.

    Returns:
      Nothing. If writing fails or is killed, a file that was at path is unchanged.

    Raises:
      TypeError: a leaf has a dtype that a file cannot hold, or is traced; a mask is not bool.
      ValueError: masks does not fit params, two leaves have the same path, or a leaf lies on
        devices of other processes.

    Example:
      >>> import os, tempfile
      >>> import jax.numpy as jnp
      >>> params = {"w": jnp.arange(4000.0)}
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     save_sparse(f"{folder}/net", params, {"w": jnp.arange(4000) % 100 == 0})
      ...     os.path.getsize(f"{folder}/net") < 300
      ...     float(load_sparse(f"{folder}/net", params)[0]["w"].sum())
      True
      78000.0
    """
    leaves = _leaves(params, "params")
    check_masks(params, masks)
    _leaves(masks, "masks")
    for name, leaf in leaves:
        if str(leaf.dtype) not in DTYPES:
            raise TypeError(
                f"params must have dtypes that a file can hold: {shown(name)} is {leaf.dtype}; "
                "keep random keys as jax.random.key_data(key), narrow integers as int8"
            )
    entries, codes, values = [], [], []
    for (name, leaf), mask in zip(leaves, jax.tree.leaves(masks), strict=True):
        mask, leaf = np.asarray(mask), np.asarray(leaf)
        codes.append(encode(mask))
        values.append(leaf[mask].tobytes())
        kept = int(np.count_nonzero(mask))
        entries.append(Entry(name, leaf.shape, kept, len(codes[-1]), str(leaf.dtype)))
    write(path, SPARSE, entries, codes + values)


def load_sparse(path: Any, like: Any = None, *, limit: int = LIMIT) -> tuple[Params, Masks]:
    """Read params and masks that save_sparse wrote; the kept weights have the same bits.

    Args:
      path: a file of save_sparse.
      like: params whose paths, shapes and dtypes the file must have, as arrays or as
        jax.ShapeDtypeStruct; None accepts any.
      limit: without like, the most bytes that params and masks may take in memory.

    Returns:
      The params with zeros where a mask is False, and the masks: both with the treedef of like,
      each leaf sharded as that of like is (a NumPy array where it is one); without like, two flat
      {path: NumPy array}.

    Raises:
      ValueError: the file is damaged, is of another kind, does not fit like, or asks for more than
        limit; the message names the file. Or it holds float64, and jax_enable_x64 is off.

    Example:
      >>> import tempfile
      >>> import jax.numpy as jnp
      >>> params = {"w": jnp.array([1.5, 2.5, 3.5], jnp.bfloat16)}
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     save_sparse(f"{folder}/net", params, {"w": jnp.array([True, False, True])})
      ...     loaded, masks = load_sparse(f"{folder}/net", params)
      >>> loaded["w"].tolist(), masks["w"].tolist()
      ([1.5, 0.0, 3.5], [True, False, True])
    """
    leaves = None if like is None else _leaves(like, "like")
    params, masks = {}, {}
    for entry, flat, values in read(path, SPARSE, *_checks(leaves, limit)):
        dense = np.zeros(entry.size, DTYPES[str(entry.dtype)])
        dense[flat] = values
        params[entry.path] = dense.reshape(entry.shape)
        masks[entry.path] = flat.reshape(entry.shape)
    if leaves is None:
        return params, masks
    return _tree(params, leaves, like), _tree(masks, leaves, like)


def _leaves(tree: Any, name: str) -> list[tuple[str, Any]]:
    """List (path, leaf); refuse traced leaves, equal paths, and leaves of other processes."""
    for leaf in jax.tree.leaves(tree):
        if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
            raise TypeError(f"{name} must be a pytree of arrays, got a {type(leaf).__name__} in it")
    if is_traced(tree):
        raise TypeError(f"{name} is traced: call this outside of jit, with arrays")
    leaves = list(distinct_leaves(tree, name).items())
    for path, leaf in leaves:
        here = getattr(leaf, "is_fully_addressable", True) or leaf.is_fully_replicated
        if name != "like" and not here:
            raise ValueError(
                f"{name} must lie on devices of this process: {shown(path)} does not; gather it "
                "with jax.experimental.multihost_utils.process_allgather(tree, tiled=True)"
            )
    return leaves


def _checks(leaves: list[tuple[str, Any]] | None, limit: int) -> tuple[Any, int]:
    """Return the check of a header, and the most bytes that reading it may take."""
    known = limit if leaves is None else sum(2048 + 64 * len(path) for path, _ in leaves)
    return lambda entries: _check(entries, leaves, limit), known


def _check(entries: list[Entry], leaves: list[tuple[str, Any]] | None, limit: int) -> None:
    """Refuse a header that does not fit the leaves; without leaves, one that exceeds the limit."""
    if leaves is None:
        asked = sum(e.size * (1 + e.width) for e in entries)
        if asked > limit:
            raise ValueError(f"it asks for {asked} bytes, limit allows {limit}: pass like, or more")
        return
    wanted, found = dict(leaves), {entry.path: entry for entry in entries}
    if wanted.keys() != found.keys():
        more, less = sorted(found.keys() - wanted)[:3], sorted(wanted.keys() - found)[:3]
        more, less = ([clip(path, 200) for path in paths] for paths in (more, less))
        raise ValueError(f"it does not fit like: only the file has {more}, only like has {less}")
    for path, leaf in leaves:
        entry = found[path]
        if entry.shape != tuple(leaf.shape):
            raise ValueError(
                f"{shown(path)} is {entry.shape} in it and {tuple(leaf.shape)} in like"
            )
        if entry.dtype and entry.dtype != str(leaf.dtype):
            raise ValueError(f"{shown(path)} is {entry.dtype} in it and {leaf.dtype} in like")


def _tree(found: dict[str, np.ndarray], leaves: list[tuple[str, Any]], like: Any) -> Any:
    placed = [_placed(path, found[path], leaf) for path, leaf in leaves]
    return jax.tree.structure(like).unflatten(placed)


def _placed(path: str, array: np.ndarray, leaf: Any) -> Any:
    """Make a JAX array sharded as the leaf is; return a NumPy array where the leaf is one."""
    if isinstance(leaf, np.ndarray | np.generic):
        return array
    if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
        raise ValueError(
            f"{shown(path)} is {array.dtype}: enable jax_enable_x64, or pass like as NumPy"
        )
    sharding = getattr(leaf, "sharding", None)
    if sharding is None or not getattr(leaf, "committed", True):
        return jnp.asarray(array)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])
