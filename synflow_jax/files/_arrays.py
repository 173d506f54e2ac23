"""Named NumPy arrays in .npz and .safetensors files."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from synflow_jax.files._replacing import replacing


def save_arrays(path: Any, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as .npz or .safetensors, which PyTorch users can read.

    Args:
      path: the file to make or replace; its suffix chooses the format.
      arrays: {name: NumPy array}, as to_torch returns them.

    Returns:
      Nothing. If writing fails, a file that was at path is unchanged.

    Raises:
      ValueError: the suffix is neither .npz nor .safetensors.
      TypeError: arrays is not a flat {name: array}.
      ImportError: the suffix is .safetensors, and the package safetensors is not installed.

    Example:
      >>> import tempfile
      >>> import numpy as np
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     save_arrays(f"{folder}/masks.npz", {"fc.weight": np.array([True, False])})
      ...     load_arrays(f"{folder}/masks.npz")["fc.weight"].tolist()
      [True, False]
    """
    write = _write_npz if _suffix(path) == ".npz" else _safetensors().save_file
    kept = _plain(arrays)
    with replacing(path) as temporary:
        write(kept, temporary)


def load_arrays(path: Any) -> dict[str, np.ndarray]:
    """Read named arrays from .npz or .safetensors, without running any code in the file.

    Args:
      path: a file of save_arrays, or any other in one of the formats; memory is allocated for the
        sizes that it claims, without a limit.

    Returns:
      {name: NumPy array}.

    Raises:
      ValueError: the suffix is neither .npz nor .safetensors, or the file is damaged, of another
        kind or holds pickled objects; the message names it.
      ImportError: the suffix is .safetensors, and the package safetensors is not installed.

    Example:
      >>> import tempfile
      >>> import numpy as np
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     save_arrays(f"{folder}/masks.npz", {"fc.weight": np.ones((3, 2), bool)})
      ...     load_arrays(f"{folder}/masks.npz")["fc.weight"].shape
      (3, 2)
    """
    read = _read_npz if _suffix(path) == ".npz" else _safetensors().load_file
    try:
        return read(path)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # each reader raises its own errors for each kind of damage
        raise ValueError(f"{str(path)!r} cannot be loaded: {error}") from error


def _plain(arrays: Any) -> dict[str, np.ndarray]:
    """Turn {name: array} into NumPy arrays in C order; refuse anything else."""
    if not isinstance(arrays, Mapping):
        raise TypeError(f"arrays must be {{name: array}}, got a {type(arrays).__name__}")
    kept = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    for name, array in kept.items():
        if not isinstance(name, str) or array.dtype == object:
            raise TypeError(
                f"arrays must be {{name: array}} without nested dicts: {name!r} is a "
                f"{type(arrays[name]).__name__}; to_torch makes one of masks"
            )
    return kept


def _write_npz(arrays: dict[str, np.ndarray], path: Path) -> None:
    # Not np.savez: arrays named "file" or "allow_pickle" would be taken for its arguments.
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _read_npz(path: Any) -> dict[str, np.ndarray]:
    with Path(path).open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError("it is no .npz")
        file.seek(0)
        with np.load(file, allow_pickle=False) as stored:
            return dict(stored)


def _suffix(path: Any) -> str:
    suffix = Path(path).suffix
    if suffix not in (".npz", ".safetensors"):
        raise ValueError(f"path must end in .npz or .safetensors, got {str(path)!r}")
    return suffix


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(
            "a .safetensors file needs the package safetensors: pip install safetensors, "
            "or take a path that ends in .npz"
        ) from error
    return safetensors.numpy
