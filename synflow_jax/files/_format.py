"""The binary format of files of masks and of sparse params. Reading one runs no code.

    8   MASKS or SPARSE
    4   version                        (numbers are unsigned and little endian)
    4   bytes of the header
    32  SHA-256 of all other bytes
    …   header: JSON, one [path, shape, kept, coded, dtype] a leaf, in tree order
    …   the codes of all masks, `coded` bytes a leaf; then the kept values, where dtype is not null

A mask has the shorter of two codes. Bits: one bit an entry, in C order, from the highest bit of
each byte; the last byte is filled with 0. Gaps: a byte b < 255 stands for b False and one True, a
byte 255 for 255 False; entries after the last True are False. An all-True mask has an empty code.
"""

import hashlib
import json
import math
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from synflow_jax.files._replacing import regular_file, replacing
from synflow_jax.trees import clip, shown

MASKS = b"\x93SFmasks"
SPARSE = b"\x93SFspars"
VERSION = 1
PREFIX = struct.Struct("<8sII32s")
LONGEST = 2**22  # bytes of a header: some fifty thousand leaves
PARSED = 30  # bytes in memory for a byte of a header, while its rows are read
FREE = 2**20  # bytes that reading a header may take whatever the limit is
MOST = 2**48  # entries of a leaf
AXES = 32  # of a leaf
SKIP = 255  # the byte of the code of gaps for 255 False and no True
_PLAIN = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64"
_HALF = "bfloat16 float8_e4m3fn float8_e5m2 float8_e4m3b11fnuz float8_e4m3fnuz float8_e5m2fnuz"
DTYPES = {name: np.dtype(name) for name in f"{_PLAIN} complex64 complex128".split()}
DTYPES |= {name: np.dtype(getattr(ml_dtypes, name)) for name in _HALF.split()}


class Entry(NamedTuple):
    """The header's row of one leaf."""

    path: str
    shape: tuple[int, ...]
    kept: int
    coded: int  # bytes of the mask's code
    dtype: str | None  # of the kept values; None in a file of masks

    @property
    def size(self) -> int:
        """The number of entries of the leaf."""
        return math.prod(self.shape)

    @property
    def width(self) -> int:
        """The bytes of one value, 0 in a file of masks."""
        return DTYPES[self.dtype].itemsize if self.dtype else 0


def encode(mask: np.ndarray) -> bytes:
    """Encode a mask as bits or as gaps, whichever is shorter."""
    flat = np.ravel(mask)
    kept, most = np.count_nonzero(flat), -(-flat.size // 8)
    if kept == flat.size:
        return b""
    if kept < most:  # a gap takes at least a byte
        gaps = np.diff(np.flatnonzero(flat), prepend=-1) - 1
        skips, rest = np.divmod(gaps, SKIP)
        ends = np.cumsum(skips + 1)
        if kept == 0 or ends[-1] < most:
            code = np.full(ends[-1] if kept else 0, SKIP, np.uint8)
            code[ends - 1] = rest
            return code.tobytes()
    return np.packbits(flat).tobytes()


def decode(code: memoryview, size: int, kept: int) -> np.ndarray:
    """Decode a mask of `size` entries; a code of fewer than ⌈size/8⌉ bytes is one of gaps."""
    if kept == size:
        return np.ones(size, bool)
    raw = np.frombuffer(code, np.uint8)
    if raw.size < -(-size // 8):
        flat = _decode_gaps(raw, size)
    else:
        flat = np.unpackbits(raw, count=size).view(bool)
        if int(raw[-1]) & ((1 << (-size % 8)) - 1):
            raise ValueError("a mask has bits beyond its end")
    if np.count_nonzero(flat) != kept:
        raise ValueError(f"a mask keeps {np.count_nonzero(flat)} entries, its header says {kept}")
    return flat


def _decode_gaps(raw: np.ndarray, size: int) -> np.ndarray:
    hits = raw != SKIP
    ends = np.cumsum(raw + hits.astype(np.int64))  # entries up to and with this byte's
    if raw.size and (ends[-1] > size or not hits[-1]):
        raise ValueError("a mask goes on beyond its end")
    flat = np.zeros(size, bool)
    flat[ends[hits] - 1] = True
    return flat


def write(path: Any, kind: bytes, entries: Sequence[Entry], parts: Sequence[bytes]) -> None:
    """Write a file of the given kind; the old file stays until the new one is complete."""
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
    path: Any, kind: bytes, check: Callable[[list[Entry]], None], limit: int
) -> list[tuple[Entry, np.ndarray, np.ndarray | None]]:
    """Read a file of the given kind.

    Args:
      path: the file.
      kind: MASKS or SPARSE.
      check: called with the entries of the header, before what they describe is read or allocated;
        raises a ValueError to refuse them.
      limit: the most bytes that reading a header of many leaves may take.

    Returns:
      (entry, flat mask, kept values or None) for each leaf.
    """
    with regular_file(path) as file:
        try:
            entries, digest = _header(file, kind, limit)
            check(entries)
            body = file.read(sum(e.coded + e.kept * e.width for e in entries))
            digest[0].update(body)
            if digest[0].digest() != digest[1]:
                raise ValueError("its checksum does not fit its bytes: it is damaged")
            return list(_leaves(entries, memoryview(body)))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{str(path)!r} cannot be loaded: {clip(str(error))}") from error


def _header(file: BinaryIO, kind: bytes, limit: int) -> tuple[list[Entry], tuple[Any, bytes]]:
    """Read and check what precedes the codes: the entries, a running hash and the hash to match."""
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
    if PARSED * length > max(limit, FREE):
        raise ValueError(
            f"its header of {length} bytes takes up to {PARSED * length} when it is read, limit "
            f"allows {limit}: pass like, or more"
        )
    header = file.read(length)
    entries = _entries(header, kind)
    expected = PREFIX.size + length + sum(e.coded + e.kept * e.width for e in entries)
    if expected != size:
        raise ValueError(f"it has {size} bytes, its header asks for {expected}")
    return entries, (hashlib.sha256(prefix[:16] + header), digest)


def _entries(header: bytes, kind: bytes) -> list[Entry]:
    """Parse the header; refuse anything but a list of entries with distinct paths."""
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
    """Whether a row of the header is an entry of possible sizes and of a known dtype."""
    if not (isinstance(row, list) and len(row) == 5 and isinstance(row[0], str)):
        return False
    _, shape, kept, coded, dtype = row
    if not (isinstance(shape, list) and len(shape) <= AXES):
        return False
    if any(type(n) is not int or n < 0 for n in (*shape, kept, coded)):  # True is an int as well
        return False
    # max(n, 1): with an axis of 0 the product is 0, and another may still be too long for NumPy.
    if math.prod(max(n, 1) for n in shape) > MOST:
        return False
    if not (dtype is None if kind == MASKS else isinstance(dtype, str) and dtype in DTYPES):
        return False
    size = math.prod(shape)
    return kept <= size and coded <= (0 if kept == size else -(-size // 8))


def _leaves(
    entries: list[Entry], body: memoryview
) -> Iterator[tuple[Entry, np.ndarray, np.ndarray | None]]:
    """Decode the mask and the kept values of each leaf."""
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
            raise ValueError(f"{shown(entry.path)} has a bool that is neither 0 nor 1")
        yield entry, flat, raw.view(DTYPES[entry.dtype])
