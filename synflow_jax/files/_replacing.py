"""Reading regular files alone, and writing a file in one step.

The old file stays until the new one is complete, and then keeps its permissions.
"""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

try:
    import fcntl
except ImportError:  # Windows has no locks of this kind: nothing is swept there
    fcntl = None

PREFIX = ".writing-"
LOCK = "lock"


@contextmanager
def regular_file(path: Any) -> Iterator[BinaryIO]:
    """Open a file for reading; refuse a pipe, a device, a socket and a folder.

    A pipe is not waited for, and nothing is read of a device that has no end.
    """
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(f"path must be a file, and {str(path)!r} is a folder")
    descriptor = os.open(target, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | BINARY)
    with os.fdopen(descriptor, "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise ValueError(f"path must be a regular file, and {str(path)!r} is {_kind(mode)}")
        yield file


BINARY = getattr(os, "O_BINARY", 0)


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"))
    return next((name for test, name in kinds if test(mode)), "a device")


def file_in_folder(path: Any) -> Path:
    """Resolve a path, links included; refuse a file in no existing folder, and all but files."""
    target = Path(path).resolve()
    if not target.parent.is_dir():
        raise FileNotFoundError(f"path must lie in a folder that exists, got {str(path)!r}")
    if target.is_dir():
        raise IsADirectoryError(f"path must be a file, and {str(path)!r} is a folder")
    if target.exists() and not target.is_file():
        raise ValueError(f"path must be a regular file, and {str(path)!r} is none: take another")
    return target


@contextmanager
def replacing(path: Any) -> Iterator[Path]:
    """Yield a temporary path; its file replaces `path` when the block ends without an error.

    The new file has the permissions of the old one, or those that the process gives to new files.
    Folders that killed processes have left beside it are removed.
    """
    target = file_in_folder(path)
    _sweep(target.parent)
    made = tempfile.TemporaryDirectory(prefix=PREFIX, dir=target.parent)
    with made as folder, _held(Path(folder, LOCK)):
        temporary = Path(folder, "new", Path(path).name)  # a link may have another suffix
        temporary.parent.mkdir()
        temporary.touch()
        mode = stat.S_IMODE((target if target.exists() else temporary).stat().st_mode)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(mode)
        temporary.replace(target)
        _keep_name(target.parent)


@contextmanager
def _held(lock: Path) -> Iterator[None]:
    """Hold a lock as long as this process writes; it is gone when the process is."""
    if fcntl is None:
        yield
        return
    early = lock.with_suffix(".new")  # under its name it is held from the start
    with early.open("wb") as file:
        with suppress(OSError):  # file systems without locks
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        early.rename(lock)
        yield


def _sweep(folder: Path) -> None:
    """Remove what writers have left that were killed: their locks are free."""
    if fcntl is None:
        return
    for left in filter(Path.is_file, folder.glob(f"{PREFIX}*/{LOCK}")):
        with suppress(OSError), left.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left.parent, ignore_errors=True)


def _keep_name(folder: Path) -> None:
    """Write the folder's list of names to the disk, so that the new file survives a power cut."""
    if os.name != "nt":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            with suppress(OSError):  # file systems that do not offer it
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
