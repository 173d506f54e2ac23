"""Do the readers of .npz and .safetensors withstand damaged files?

    python -m benchmarks.fuzz_arrays           # 100,000 files of each, some ten minutes on a core

Loading a damaged file must raise a ValueError that names it, or return what `slowly` reads: readers
of a few lines that share no code with the library or with what it uses. Half of the damages are to
the structure, with lengths and checksums made anew: names, dtypes, shapes, offsets, versions,
members twice or of another kind. Writes counts, the seconds and the most memory that a load took
to benchmarks/results/fuzz_arrays.json.
"""

import ast
import collections
import io
import json
import math
import struct
import sys
import tempfile
import time
import tracemalloc
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.exact.fuzz_masks import NUMBERS, cut, flip, insert, overwrite, reason
from experiments.records.files import replacing
from synflow_jax.files import load_arrays, save_arrays

RESULT = Path(__file__).parents[1] / "results" / "fuzz_arrays.json"
FILES = 100_000
LIMIT = 2**16
Rng = np.random.Generator
Arrays = dict[str, tuple[str, list[int], bytes]]  # dtype, shape and bytes in C order
RAW = (flip, cut, insert, overwrite)
DTYPES = ("<f4", "|b1", "<i8", "|O", "<U3", "|V4", ">f8", "i4,f4", "<f16", 3, None)
TYPES = ("F32", "BOOL", "I64", "F64", "BF16", "F8_E4M3", "U8", "X", 3, None)
SHAPES = ((), (0,), (3, 4), (12,), (2**40,), (-1,), (1.5,), (2**70, 0), ("3",), None)


def stored() -> dict[str, np.ndarray]:
    """Make arrays of several dtypes, one without entries and one without axes."""
    rng = np.random.default_rng(0)
    return {
        "mask/bits": rng.random((7, 9)) < 0.4,
        "w": rng.standard_normal((4, 5)).astype(np.float32),
        "steps": np.arange(6),
        "none": np.zeros((0, 3), np.float32),
        "scale": np.array(2.5),
    }


# .npz


def members(data: bytes) -> list[tuple[str, bytes]]:
    """List the files of an archive."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def packed(files: list[tuple[str, bytes]]) -> bytes:
    """Make an archive, with checksums that fit."""
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w") as archive:
        warnings.simplefilter("ignore")  # of a member twice
        for name, content in files:
            archive.writestr(zipfile.ZipInfo(name), content)
    return out.getvalue()


def parts(content: bytes) -> tuple[bytes, dict[str, Any], bytes]:
    """Split a .npy of version 1 into its first eight bytes, its header and the rest."""
    length = struct.unpack("<H", content[8:10])[0]
    return content[:8], ast.literal_eval(content[10 : 10 + length].decode()), content[10 + length :]


def joined(start: bytes, header: Any, rest: bytes) -> bytes:
    """Make a .npy of a header, whatever is in it."""
    text = (header if isinstance(header, str) else repr(header)).encode("latin1", "replace")
    return start + struct.pack("<H", len(text) + 1) + text + b"\n" + rest


def npz_structure(data: bytes, rng: Rng) -> bytes:
    """Change a name, a header or the number of members."""
    files = members(data)
    at, what = int(rng.integers(len(files))), int(rng.integers(8))
    name, content = files[at]
    start, header, rest = parts(content)
    if what == 0:
        files[at] = (("x", "..", "a/b.npy", "", "w.npy", "w.npy.npy")[rng.integers(6)], content)
    elif what == 1:
        files[at] = (name, joined(start, header | {"descr": DTYPES[rng.integers(11)]}, rest))
    elif what == 2:
        files[at] = (name, joined(start, header | {"shape": SHAPES[rng.integers(10)]}, rest))
    elif what == 3:
        files[at] = (
            name,
            joined(start, header | {"fortran_order": (True, 1)[rng.integers(2)]}, rest),
        )
    elif what == 4:
        files[at] = (name, joined(start[:6] + rng.bytes(2), header, rest))
    elif what == 5:
        files[at] = (
            name,
            joined(start, ("{}", "[", "__import__('os')", "9" * 300)[rng.integers(4)], rest),
        )
    elif what == 6:
        files[at] = (
            name,
            joined(start, header, rest[: rng.integers(len(rest) + 1)] + rng.bytes(rng.integers(3))),
        )
    else:
        files.pop(at)
        files += [files[0]] if rng.random() < 0.3 else []
    return packed(files)


def slowly_npz(data: bytes) -> Arrays:
    """Read each member by hand."""
    found = {}
    for name, content in members(data):
        start, header, rest = parts(content)
        assert start == b"\x93NUMPY\x01\x00"
        dtype, shape = np.dtype(header["descr"]), list(header["shape"])
        assert len(rest) == dtype.itemsize * math.prod(shape)
        order = "F" if header["fortran_order"] else "C"
        array = np.frombuffer(rest, dtype).reshape(shape, order=order)
        found[name.removesuffix(".npy")] = (str(dtype), shape, array.tobytes())
    return found


# .safetensors


def split(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Split a file into its header and the rest."""
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def safetensors_structure(data: bytes, rng: Rng) -> bytes:
    """Change the header: a name, a dtype, a shape, an offset, or what it is."""
    header, rest = split(data)
    names = list(header)
    name, what = names[rng.integers(len(names))], int(rng.integers(7))
    if what == 0:
        header[("", "x", "w", "__metadata__", "\0")[rng.integers(5)]] = header.pop(name)
    elif what == 1:
        header[name]["dtype"] = TYPES[rng.integers(10)]
    elif what == 2:
        header[name]["shape"] = SHAPES[rng.integers(10)]
    elif what == 3:
        header[name]["data_offsets"][rng.integers(2)] += int(rng.integers(-4, 5))
    elif what == 4:
        header[name]["data_offsets"][rng.integers(2)] = NUMBERS[rng.integers(len(NUMBERS) - 1)]
    elif what == 5:
        rest = rest[: rng.integers(len(rest) + 1)] + rng.bytes(rng.integers(3))
    else:
        header[name] = (3, [], {}, None)[rng.integers(4)]
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + rest


KINDS = {"BOOL": "bool", "F32": "float32", "I64": "int64", "F64": "float64", "U8": "uint8"}
KINDS |= {"BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn"}


def slowly_safetensors(data: bytes) -> Arrays:
    """Read each array by hand."""
    header, rest = split(data)
    header.pop("__metadata__", None)
    return {
        name: (KINDS[row["dtype"]], row["shape"], rest[slice(*row["data_offsets"])])
        for name, row in header.items()
    }


FORMATS = {
    ".npz": (npz_structure, slowly_npz),
    ".safetensors": (safetensors_structure, slowly_safetensors),
}


def outcome(path: Path, data: bytes, sound: Arrays, slowly: Any) -> str:
    """Load a file and name the outcome; raise an AssertionError for one that must not be."""
    try:
        loaded = load_arrays(path, limit=LIMIT)
    except ValueError as error:
        if str(path) not in str(error):
            raise AssertionError(f"the file is not named: {error}") from error
        return reason(str(error)).partition(",")[0][:60]
    found = {name: (str(a.dtype), list(a.shape), a.tobytes()) for name, a in loaded.items()}
    for name, array in loaded.items():
        if array.dtype == bool and (np.ravel(array).view(np.uint8) > 1).any():
            raise AssertionError(f"{name!r} has a bool that is neither 0 nor 1")
    if found == sound:
        return "as stored"
    if found != slowly(data):
        raise AssertionError("other arrays than the file holds")
    return "other arrays, rightly read"


def run(folder: Path, suffix: str, files: int, seed: int = 0) -> dict[str, Any]:
    """Damage files of one format, load them, and count the outcomes."""
    structure, slowly = FORMATS[suffix]
    rng, path = np.random.default_rng(seed), folder / f"file{suffix}"
    save_arrays(path, stored())
    whole, counts, peak = path.read_bytes(), collections.Counter(), 0
    sound = slowly(whole)
    start = time.perf_counter()
    tracemalloc.start()
    for _ in range(files):
        data = structure(whole, rng) if rng.random() < 0.5 else whole
        if data is whole or rng.random() < 0.2:
            data = RAW[rng.integers(len(RAW))](data, rng) or b"\0"
        path.write_bytes(data)
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        counts[outcome(path, data, sound, slowly)] += 1
        peak = max(peak, tracemalloc.get_traced_memory()[1] - before)
    tracemalloc.stop()
    seconds = round(time.perf_counter() - start)
    common = dict(counts.most_common())
    return {"files": files, "seconds": seconds, "most bytes of a load": peak, "outcomes": common}


def main() -> None:
    """Run, store, print."""
    files = int(sys.argv[1]) if len(sys.argv) > 1 else FILES
    with tempfile.TemporaryDirectory() as folder:
        report = {suffix: run(Path(folder), suffix, files) for suffix in FORMATS}
    print(json.dumps(report, indent=2, ensure_ascii=False))
    if files == FILES:
        with replacing(RESULT) as path:
            path.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
