"""Named NumPy arrays in .npz and .safetensors files."""

import math
import os
import unicodedata
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from synflow_jax.files._replacing import regular_file, replacing
from synflow_jax.trees import clip, shown

LIMIT = 2**30  # bytes


def save_arrays(path: Any, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as .npz or .safetensors, which PyTorch users can read.

    Args:
      path: the file to make or replace; its suffix chooses the format.
      arrays: {name: NumPy array}, as to_torch returns them.

    Returns:
      Nothing. If writing fails, a file that was at path is unchanged.

    Raises:
      ValueError: the suffix is neither .npz nor .safetensors, or an array could not be read back
        from such a file with its name and dtype.
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
    suffix, kept = _suffix(path), _plain(arrays)
    write = _write_npz if suffix == ".npz" else _safetensors().save_file
    for name, array in kept.items():
        if why := _unfit(name, array, suffix):
            raise ValueError(f"arrays: {shown(name)} cannot be stored in a {suffix} file: {why}")
    with replacing(path) as temporary:
        try:
            write(kept, temporary)
            found = _read(temporary, 2**62)
        except OSError:
            raise
        except Exception as error:  # each writer raises its own errors
            raise ValueError(
                f"arrays cannot be stored in {str(path)!r}, which is unchanged: "
                f"{clip(str(error.__cause__ or error))}"
            ) from error
        _compare(kept, found, path)


def _unfit(name: str, array: np.ndarray, suffix: str) -> str:
    """Return why an array could not be read back under its name; empty if it can."""
    if any(unicodedata.category(sign) in ("Cc", "Cs") for sign in name):
        return "its name holds characters that are not printable"
    if suffix == ".safetensors":
        return "that name is kept for metadata" if name == "__metadata__" else ""
    if name.endswith(".npy"):
        return "NumPy drops .npy from names when it reads"
    if array.dtype.kind == "V":
        return f"it has no {array.dtype}: take .safetensors, or np.float32(array)"
    return ""


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def _compare(kept: dict[str, np.ndarray], found: dict[str, np.ndarray], path: Any) -> None:
    """Refuse to replace a file by one from which something else is read than was given."""
    for name, array in kept.items():
        other = found.get(name)
        if other is None or not _same(array, other):
            raise ValueError(
                f"arrays: {shown(name)} of dtype {array.dtype} cannot be read back from "
                f"{str(path)!r}, which is unchanged: take another name, dtype or format"
            )


def load_arrays(path: Any, *, limit: int = LIMIT) -> dict[str, np.ndarray]:
    """Read named arrays from .npz or .safetensors, without running any code in the file.

    Args:
      path: a file of save_arrays, or any other in one of the formats; a regular file, or a link to
        one.
      limit: the most bytes that the arrays may take in memory, of which a small compressed file can
        hold many.

    Returns:
      {name: NumPy array}.

    Raises:
      ValueError: the suffix is neither .npz nor .safetensors, or the file is damaged, of another
        kind, no regular file, asks for more than limit, or holds pickled objects or bools that are
        neither 0 nor 1; the message names it.
      ImportError: the suffix is .safetensors, and the package safetensors is not installed.

    Example:
      >>> import tempfile
      >>> import numpy as np
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     save_arrays(f"{folder}/masks.npz", {"fc.weight": np.ones((3, 2), bool)})
      ...     load_arrays(f"{folder}/masks.npz")["fc.weight"].shape
      (3, 2)
    """
    return _read(path, limit)


def _read(path: Any, limit: int) -> dict[str, np.ndarray]:
    if _suffix(path) == ".npz":
        read = _read_npz
    else:
        read, _ = _read_safetensors, _safetensors()  # says what is missing before all else
    with regular_file(path) as file:
        try:
            found = read(path, file, limit)
        except MemoryError:
            raise
        except Exception as error:  # each reader raises its own errors for each kind of damage
            raise ValueError(f"{str(path)!r} cannot be loaded: {clip(str(error))}") from error
    for name, array in found.items():
        if not is_clean(array):
            raise ValueError(
                f"{str(path)!r} cannot be loaded: {shown(name)} has a bool that is neither 0 nor 1"
            )
    return found


def is_clean(array: np.ndarray) -> bool:
    """Whether every bool of an array is stored as 0 or 1, so that counts of it are right."""
    return array.dtype != np.bool_ or not (array.reshape(-1).view(np.uint8) > 1).any()


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


def _read_npz(path: Any, file: BinaryIO, limit: int) -> dict[str, np.ndarray]:
    """Read each member by itself: np.load returns what is no .npy as bytes, unchecked."""
    del path
    if not zipfile.is_zipfile(file):
        raise ValueError("it is no .npz")
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        names = [member.filename for member in members]
        if other := [name for name in names if not name.endswith(".npy")]:
            raise ValueError(f"it holds {shown(other[0])}, which is no .npy")
        if len(set(names)) < len(names):
            raise ValueError("it holds an array twice")
        _check_size(sum(member.file_size for member in members), limit)
        return {member.filename[: -len(".npy")]: _member(archive, member) for member in members}


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """Read one .npy, once its header is found to ask for as many bytes as there are."""
    lib = np.lib.format
    with archive.open(member) as stream:
        version = lib.read_magic(stream)
        read = {(1, 0): lib.read_array_header_1_0, (2, 0): lib.read_array_header_2_0}.get(version)
        if read is None:
            raise ValueError(f"{shown(member.filename)} has a version that is not known")
        shape, _, dtype = read(stream)
        if dtype.hasobject:
            raise ValueError(
                f"{shown(member.filename)} holds pickled objects, which run code (allow_pickle)"
            )
        if math.prod(shape) * dtype.itemsize != member.file_size - stream.tell():
            raise ValueError(f"{shown(member.filename)} has not as many bytes as its header says")
    with archive.open(member) as stream:
        return lib.read_array(stream, allow_pickle=False)


def _read_safetensors(path: Any, file: BinaryIO, limit: int) -> dict[str, np.ndarray]:
    _check_size(os.fstat(file.fileno()).st_size, limit)
    return _safetensors().load_file(path)


def _check_size(asked: int, limit: int) -> None:
    if asked > limit:
        raise ValueError(f"it asks for {asked} bytes, limit allows {limit}: pass more")


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
