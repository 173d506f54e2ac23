"""The bytes of a file of masks: nothing in it is run, and every number is checked before use.

    8   MASKS or SPARSE
    4   version                        (numbers are unsigned and little endian)
    4   bytes of the header
    32  SHA-256 of all other bytes
    …   header: JSON, one [path, shape, kept, coded, dtype] a leaf, in tree order
    …   the codes of all masks, `coded` bytes a leaf; then the kept values, where dtype is not null

A mask is coded in whichever is shorter. Bits: one an entry, in C order, the first the highest of
its byte, the last byte filled up with 0. Gaps: a byte b < 255 is b False and one True, a byte 255
is 255 False, and what follows the last True is False. Nothing at all is stored where all is True.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def file_in_folder(path: Any) -> Path:
    """Say which file a path means, a link's own target; refuse a folder, and one in no folder."""
    target = Path(path).resolve()
    if not target.parent.is_dir():
        raise FileNotFoundError(f"path must lie in a folder that is there, got {str(path)!r}")
    if target.is_dir():
        raise IsADirectoryError(f"path must be a file, and {str(path)!r} is a folder")
    return target


@contextmanager
def replacing(path: Any) -> Iterator[Path]:
    """Yield a path to write to, whose file takes the place of `path` when the block ends well."""
    target = file_in_folder(path)
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=target.parent) as folder:
        temporary = Path(folder, target.name)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
