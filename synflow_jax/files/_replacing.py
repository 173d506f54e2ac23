"""Writing a file in one step: the old file stays until the new one is complete."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def file_in_folder(path: Any) -> Path:
    """Resolve a path, links included; refuse a folder, and a file in no existing folder."""
    target = Path(path).resolve()
    if not target.parent.is_dir():
        raise FileNotFoundError(f"path must lie in a folder that exists, got {str(path)!r}")
    if target.is_dir():
        raise IsADirectoryError(f"path must be a file, and {str(path)!r} is a folder")
    return target


@contextmanager
def replacing(path: Any) -> Iterator[Path]:
    """Yield a temporary path; its file replaces `path` when the block ends without an error."""
    target = file_in_folder(path)
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=target.parent) as folder:
        temporary = Path(folder, target.name)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
