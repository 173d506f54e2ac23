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

import hashlib
import json
import math
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from synflow_jax.files._replacing import replacing

MASKS = b"\x93SFmasks"
SPARSE = b"\x93SFspars"
VERSION = 1
PREFIX = struct.Struct("<8sII32s")
LONGEST = 2**22  # bytes of a header: some fifty thousand leaves, and no flood of objects
MOST = 2**48  # entries of a leaf
AXES = 32
SKIP = 255
_PLAIN = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64"
_HALF = "bfloat16 float8_e4m3fn float8_e5m2 float8_e4m3b11fnuz float8_e4m3fnuz float8_e5m2fnuz"
DTYPES = {name: np.dtype(name) for name in f"{_PLAIN} complex64 complex128".split()}
DTYPES |= {name: np.dtype(getattr(ml_dtypes, name)) for name in _HALF.split()}


class Entry(NamedTuple):
    """One leaf, as the header has it."""

    path: str
    shape: tuple[int, ...]
    kept: int
    coded: int  # bytes of the mask's code
    dtype: str | None  # of the kept values, where the file holds them

    @property
    def size(self) -> int:
        """Entries of the leaf."""
        return math.prod(self.shape)

    @property
    def width(self) -> int:
        """Bytes of one value in the file."""
        return DTYPES[self.dtype].itemsize if self.dtype else 0


def encode(mask: np.ndarray) -> bytes:
    """Code a mask as bits or as gaps, whichever is shorter."""
    flat = np.ravel(mask)
    kept, most = np.count_nonzero(flat), -(-flat.size // 8)
    if kept == flat.size:
        return b""
    if kept < most:  # gaps take a byte each at least
        gaps = np.diff(np.flatnonzero(flat), prepend=-1) - 1
        skips, rest = np.divmod(gaps, SKIP)
        ends = np.cumsum(skips + 1)
        if kept == 0 or ends[-1] < most:
            code = np.full(ends[-1] if kept else 0, SKIP, np.uint8)
            code[ends - 1] = rest
            return code.tobytes()
    return np.packbits(flat).tobytes()


def decode(code: memoryview, size: int, kept: int) -> np.ndarray:
    """Read the code of a mask of `size` entries; the length of a code says which one it is."""
    if kept == size:
        return np.ones(size, bool)
    raw = np.frombuffer(code, np.uint8)
    if raw.size < -(-size // 8):
        flat = _of_gaps(raw, size)
    else:
        flat = np.unpackbits(raw, count=size).view(bool)
        if int(raw[-1]) & ((1 << (-size % 8)) - 1):
            raise ValueError("a mask has bits beyond its end")
    if np.count_nonzero(flat) != kept:
        raise ValueError(f"a mask keeps {np.count_nonzero(flat)} entries, its header says {kept}")
    return flat


def _of_gaps(raw: np.ndarray, size: int) -> np.ndarray:
    hits = raw != SKIP
    ends = np.cumsum(raw + hits.astype(np.int64))  # entries up to here
    if raw.size and (ends[-1] > size or not hits[-1]):
        raise ValueError("a mask goes on beyond its end")
    flat = np.zeros(size, bool)
    flat[ends[hits] - 1] = True
    return flat


def write(path: Any, kind: bytes, entries: Sequence[Entry], parts: Sequence[bytes]) -> None:
    """Write a file, whole or not at all; what lay there stays until the new one is complete."""
    header = json.dumps(entries, separators=(",", ":")).encode()
    if len(header) > LONGEST:
        raise ValueError(f"the header of {str(path)!r} would take {len(header)} bytes: too many")
    digest = hashlib.sha256(PREFIX.pack(kind, VERSION, len(header), b"")[:16])
    for part in (header, *parts):
        digest.update(part)
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(PREFIX.pack(kind, VERSION, len(header), digest.digest()))
        file.writelines((header, *parts))


def read(
    path: Any, kind: bytes, check: Callable[[list[Entry]], None]
) -> list[tuple[Entry, np.ndarray, np.ndarray | None]]:
    """Read a file: an entry, a flat mask and the kept values a leaf.

    `check` sees the header before anything is read or allocated that the header asks for.
    """
    with Path(path).open("rb") as file:
        try:
            entries, digest = _header(file, kind)
            check(entries)
            body = file.read(sum(e.coded + e.kept * e.width for e in entries))
            digest[0].update(body)
            if digest[0].digest() != digest[1]:
                raise ValueError("its checksum does not fit its bytes: it is damaged")
            return list(_leaves(entries, memoryview(body)))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{str(path)!r} cannot be loaded: {error}") from error


def _header(file: BinaryIO, kind: bytes) -> tuple[list[Entry], tuple[Any, bytes]]:
    """Read and check all that comes before the codes."""
    size, prefix = os.fstat(file.fileno()).st_size, file.read(PREFIX.size)
    if len(prefix) < PREFIX.size or prefix[:8] not in (MASKS, SPARSE):
        raise ValueError("it is no file of save_masks or save_sparse")
    found, version, length, digest = PREFIX.unpack(prefix)
    if found != kind:
        reader = "load_masks" if found == MASKS else "load_sparse"
        raise ValueError(f"it is one for {reader}")
    if version != VERSION:
        raise ValueError(f"its version is {version}, and this library reads {VERSION}")
    if length > min(LONGEST, size - PREFIX.size):
        raise ValueError(f"its header of {length} bytes is longer than the file or than {LONGEST}")
    header = file.read(length)
    entries = _entries(header, kind)
    whole = PREFIX.size + length + sum(e.coded + e.kept * e.width for e in entries)
    if whole != size:
        raise ValueError(f"it has {size} bytes, its header asks for {whole}")
    return entries, (hashlib.sha256(prefix[:16] + header), digest)


def _entries(header: bytes, kind: bytes) -> list[Entry]:
    try:
        rows = json.loads(header.decode())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its header is no JSON ({type(error).__name__})") from error
    if not isinstance(rows, list) or not all(_is_entry(row, kind) for row in rows):
        raise ValueError("its header is no list of [path, shape, kept, coded, dtype]")
    entries = [Entry(path, tuple(shape), *rest) for path, shape, *rest in rows]
    if len({entry.path for entry in entries}) < len(entries):
        raise ValueError("its header names a leaf twice")
    return entries


def _is_entry(row: Any, kind: bytes) -> bool:
    if not (isinstance(row, list) and len(row) == 5 and isinstance(row[0], str)):
        return False
    _, shape, kept, coded, dtype = row
    if not (isinstance(shape, list) and len(shape) <= AXES):
        return False
    if any(type(n) is not int or n < 0 for n in (*shape, kept, coded)):  # True is an int as well
        return False
    # An axis of 0 must not hide one that is too long for NumPy.
    if math.prod(max(n, 1) for n in shape) > MOST:
        return False
    if not (dtype is None if kind == MASKS else isinstance(dtype, str) and dtype in DTYPES):
        return False
    size = math.prod(shape)
    return kept <= size and coded <= (0 if kept == size else -(-size // 8))


def _leaves(
    entries: list[Entry], body: memoryview
) -> Iterator[tuple[Entry, np.ndarray, np.ndarray | None]]:
    values_at = sum(entry.coded for entry in entries)
    code_at = 0
    for entry in entries:
        flat = decode(body[code_at : code_at + entry.coded], entry.size, entry.kept)
        code_at += entry.coded
        if not entry.dtype:
            yield entry, flat, None
            continue
        end = values_at + entry.kept * entry.width
        raw, values_at = np.frombuffer(body[values_at:end], np.uint8), end
        if entry.dtype == "bool" and (raw > 1).any():
            raise ValueError(f"{entry.path!r} has a bool that is neither 0 nor 1")
        yield entry, flat, raw.view(DTYPES[entry.dtype])
