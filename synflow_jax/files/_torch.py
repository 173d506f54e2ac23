"""Masks with the names and the layout of a PyTorch state dict, and back."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from synflow_jax.files._arrays import is_clean
from synflow_jax.trees import Masks, as_arrays, check_bool, converted, distinct_leaves, is_traced

Names = Mapping[str, str] | Callable[[str], str | None]
Axes = Callable[[str, int], tuple[int, ...]]
KERNELS = frozenset({"kernel", "w"})


def torch_axes(path: str, ndim: int) -> tuple[int, ...]:
    """Return the axes of a leaf in PyTorch's order: (output, input, window) for a kernel.

    Kernels are leaves of two or more axes that are named kernel or w; others keep their order.
    """
    if path.split("/")[-1] in KERNELS and ndim >= 2:
        return (ndim - 1, ndim - 2, *range(ndim - 2))
    return tuple(range(ndim))


@converted("masks")
def to_torch(masks: Masks, names: Names, *, axes: Axes = torch_axes) -> dict[str, np.ndarray]:
    """Convert masks to the names and the layout of a PyTorch state dict.

    Leaves named kernel or w (Flax, Haiku) get output and input first: (in, out) becomes (out, in),
    and (height, width, in, out) becomes (out, in, height, width). Others keep their layout. Only
    the order of axes is converted: not attention kernels of three axes, which PyTorch stores as one
    matrix, and not transposed convolutions, whose window PyTorch flips.

    Args:
      masks: bool arrays in any pytree, True = keep.
      names: the name of each leaf in the state dict, as {path: name} or path -> name; leaves
        without one, or with None, are left out.
      axes: (path, number of axes) -> the axes of the leaf in PyTorch's order.

    Returns:
      {name: bool NumPy array}.

    Raises:
      TypeError: a mask is not bool, or is traced; names is neither a mapping nor a function.
      ValueError: names has a path that masks does not have, or gives two leaves the same name; two
        masks have the same path, as those of {"a/b": …} and {"a": {"b": …}}.

    Example:
      >>> import jax.numpy as jnp
      >>> masks = {"Dense_0": {"kernel": jnp.array([[True, False, True], [False, False, True]])}}
      >>> to_torch(masks, {"Dense_0/kernel": "fc.weight"})["fc.weight"].astype(int).tolist()
      [[1, 0], [0, 0], [1, 1]]
    """
    check_bool(masks)
    if is_traced(masks):
        raise TypeError("masks is traced: call to_torch outside of jit, with arrays")
    leaves = distinct_leaves(masks, "masks")
    arrays = {}
    for path, name in _names(list(leaves), names).items():
        mask = np.asarray(leaves[path])
        arrays[name] = np.asarray(np.transpose(mask, axes(path, mask.ndim)), order="C")
    return arrays


def from_torch(
    arrays: Mapping[str, Any], like: Any, names: Names, *, axes: Axes = torch_axes
) -> Masks:
    """Convert masks of a PyTorch state dict to a tree: the inverse of to_torch.

    Args:
      arrays: {name: array of 0 and 1}, as NumPy arrays or PyTorch tensors in the host's memory;
        arrays that `names` does not name are ignored.
      like: params or masks with the treedef and the shapes of the result.
      names: as in to_torch; leaves without a name get an all-True mask.
      axes: as in to_torch.

    Returns:
      A bool tree with the treedef of like.

    Raises:
      TypeError: names is neither a mapping nor a function.
      ValueError: an array is missing, has another shape, or holds anything but 0 and 1; names has a
        path that like does not have, or gives two leaves the same name; two leaves of like have
        the same path.

    Example:
      >>> import numpy as np
      >>> like = {"Dense_0": {"kernel": np.ones((2, 3)), "bias": np.ones(3)}}
      >>> arrays = {"fc.weight": np.array([[1, 0], [0, 0], [1, 1]])}
      >>> masks = from_torch(arrays, like, {"Dense_0/kernel": "fc.weight"})
      >>> masks["Dense_0"]["kernel"].astype(int).tolist()
      [[1, 0, 1], [0, 0, 1]]
    """
    leaves = list(distinct_leaves(like, "like").items())
    named = _names([path for path, _ in leaves], names)
    if missing := sorted(set(named.values()) - set(arrays)):
        raise ValueError(
            f"arrays must hold an array for each name in names: {missing[:3]} of "
            f"{len(missing)} are missing"
        )

    given = as_arrays({name: arrays[name] for name in named.values()}, "arrays")

    def one(path: str, leaf: Any) -> jax.Array:
        if path not in named:
            return jnp.ones(leaf.shape, bool)
        array, order = np.asarray(given[named[path]]), axes(path, len(leaf.shape))
        if array.shape != (wanted := tuple(leaf.shape[axis] for axis in order)):
            raise ValueError(f"arrays: {named[path]!r} must be {wanted}, got {array.shape}")
        if not is_clean(array) or not ((array == 0) | (array == 1)).all():
            raise ValueError(f"arrays: {named[path]!r} must hold 0 and 1 alone")
        return jnp.asarray(np.transpose(array.astype(bool), np.argsort(order)))

    return jax.tree.structure(like).unflatten([one(path, leaf) for path, leaf in leaves])


def _names(paths: list[str], names: Any) -> dict[str, str]:
    """Return {path: name} of the leaves that have a name; refuse unknown paths and equal names."""
    if not callable(names) and not isinstance(names, Mapping):
        raise TypeError(f"names must be {{path: name}} or path -> name, got {type(names).__name__}")
    if isinstance(names, Mapping) and (unknown := sorted(set(map(str, names)) - set(paths))):
        raise ValueError(f"names has {unknown[:3]}, and the leaves are {paths[:8]}")
    name_of: Any = names if callable(names) else names.get
    found = {path: name for path in paths if (name := name_of(path)) is not None}
    taken = list(found.values())
    if twice := sorted({name for name in taken if taken.count(name) > 1}):
        raise ValueError(
            f"names must give each leaf a name of its own: {twice[:3]} are given twice"
        )
    return found
