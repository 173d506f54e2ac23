"""Do the readers of masks and of sparse params withstand damaged files?

    python -m benchmarks.fuzz_masks            # 100,000 files, three to eight minutes on one core

Loading a damaged file must raise a ValueError that names it, or return exactly what was stored.
With a new checksum, a damaged file can be a valid file of other masks: they must be those that
`slowly` reads, which goes entry by entry and shares no code with the library. Writes counts, the
seconds and the most memory that a load took to benchmarks/results/fuzz_masks.json.
"""

import collections
import hashlib
import json
import math
import re
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import synflow_jax as sf
from experiments.records.files import replacing

RESULT = Path(__file__).parents[1] / "results" / "fuzz_masks.json"
FILES = 100_000
LIMIT = 2**16
NUMBERS = (0, 1, 7, 8, 9, 127, 255, 256, 2**16, 2**31 - 1, 2**32, 2**48, 2**63, 2**64, 10**400)
WORDS = (-1, 1.0, True, None, "", "gaps", "float32", "object", "bool", [], [0], [[]], {})
WIDTHS = {"bool": 1, "float32": 4}
Rng = np.random.Generator


def flip(data: bytes, rng: Rng) -> bytes:
    """Flip one to eight bits."""
    out = bytearray(data)
    for at in rng.integers(0, 8 * len(out), rng.integers(1, 9)):
        out[at // 8] ^= 1 << int(at % 8)
    return bytes(out)


def cut(data: bytes, rng: Rng) -> bytes:
    """Remove all bytes after a position, or a range of bytes."""
    start, end = sorted(rng.integers(0, len(data) + 1, 2))
    return data[:start] + (data[end:] if rng.random() < 0.5 else b"")


def insert(data: bytes, rng: Rng) -> bytes:
    """Insert random bytes, or a range of the file a second time."""
    at, start = rng.integers(0, len(data) + 1, 2)
    length = int(rng.integers(1, 40))
    new = rng.bytes(length) if rng.random() < 0.5 else data[start : start + length]
    return data[:at] + new + data[at:]


def overwrite(data: bytes, rng: Rng) -> bytes:
    """Replace bytes by values that parsers often mishandle."""
    at, byte = int(rng.integers(0, len(data))), (0, 255, 0x80, 0x5B, 0x22)[rng.integers(5)]
    length = min(int(rng.integers(1, 9)), len(data) - at)
    return data[:at] + bytes([byte]) * length + data[at + length :]


def prefix(data: bytes, rng: Rng) -> bytes:
    """Change a byte of the version, of the kind or of the length of the header."""
    at = int(rng.integers(0, 16))
    return data[:at] + rng.bytes(1) + data[at + 1 :]


def header(data: bytes, rng: Rng) -> bytes:
    """Change the header: a number, a type, a name or a row."""
    length = int.from_bytes(data[12:16], "little")
    rows, body = json.loads(data[48 : 48 + length]), data[48 + length :]
    at, what = int(rng.integers(len(rows))), rng.integers(6)
    column = int(rng.integers(5))
    if what == 0:
        rows.pop(at)
    elif what == 1:
        rows.insert(at, rows[rng.integers(len(rows))])
    elif what == 2:
        rows[at][column] = WORDS[rng.integers(len(WORDS))]
    elif what == 3:
        rows[at][int(rng.integers(2, 4))] += int(rng.integers(-2, 3))
    elif what == 4 and rows[at][1]:
        rows[at][1][rng.integers(len(rows[at][1]))] = NUMBERS[rng.integers(len(NUMBERS))]
    else:
        rows[at][int(rng.integers(2, 4))] = NUMBERS[rng.integers(len(NUMBERS))]
    new = json.dumps(rows, separators=(",", ":")).encode()
    return data[:12] + len(new).to_bytes(4, "little") + data[16:48] + new + body


def body(data: bytes, rng: Rng) -> bytes:
    """Flip bits of codes and values only."""
    start = 48 + int.from_bytes(data[12:16], "little")
    return data[:start] + flip(data[start:], rng)


def seal(data: bytes) -> bytes:
    """Replace the checksum by the one that fits the bytes."""
    return data[:16] + hashlib.sha256(data[:16] + data[48:]).digest() + data[48:]


# Files that `header` and `body` damage stay well-formed and reach furthest into the readers, so
# these two are drawn more often.
DAMAGES = (flip, cut, insert, overwrite, prefix, header, header, header, body, body)
Leaf = tuple[list[int], list[bool], bytes]


def slowly(data: bytes) -> dict[str, Leaf]:
    """Read shape, mask and kept values of each leaf, as the format specifies them."""
    length = int.from_bytes(data[12:16], "little")
    rows, at, found = json.loads(data[48 : 48 + length]), 48 + length, {}
    values_at = at + sum(row[3] for row in rows)
    for path, shape, kept, coded, dtype in rows:
        size, code = math.prod(shape), data[at : at + coded]
        at += coded
        if kept == size:
            mask = [True] * size
        elif coded == (size + 7) // 8:
            mask = [bool(code[i // 8] >> (7 - i % 8) & 1) for i in range(size)]
        else:
            mask = []
            for byte in code:
                mask += [False] * byte + [True] * (byte < 255)
            mask += [False] * (size - len(mask))
        start = values_at
        values_at += kept * (0 if dtype is None else WIDTHS[dtype])
        found[path] = (shape, mask, data[start:values_at])
    return found


def described(loaded: Any) -> dict[str, Leaf]:
    """Convert what a reader returned to the form of slowly(); pruned weights must be 0."""
    params, masks = loaded if isinstance(loaded, tuple) else ({}, loaded)
    for path, leaf in params.items():
        if leaf[~masks[path]].tobytes().strip(b"\0"):
            raise AssertionError(f"{path!r} has a pruned weight that is not 0")
    values = {path: leaf[masks[path]].tobytes() for path, leaf in params.items()}
    return {
        path: (list(mask.shape), mask.ravel().tolist(), values.get(path, b""))
        for path, mask in masks.items()
    }


class Case:
    """A valid file, its reader, and its contents."""

    def __init__(self, folder: Path, kind: str) -> None:
        rng = np.random.default_rng(0)
        masks = {
            "bits": rng.random((7, 13)) < 0.4,
            "gaps": rng.random((30, 40)) < 0.01,
            "bool": np.ones(9, bool),
            "none": np.zeros((3, 3), bool),
        }
        self.like = {k: rng.standard_normal(m.shape).astype(np.float32) for k, m in masks.items()}
        self.like |= {"bool": rng.random(9) < 0.5}
        self.path = folder / f"{kind}.file"
        if kind == "masks":
            sf.save_masks(self.path, masks)
        else:
            sf.files.save_sparse(self.path, self.like, masks)
        self.load: Callable[..., Any] = sf.load_masks if kind == "masks" else sf.files.load_sparse
        self.data, self.peak = self.path.read_bytes(), 0
        self.sound = slowly(self.data)

    def measured(self, **arguments: Any) -> Any:
        """Load the file and record the peak of the memory that it took."""
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        try:
            return self.load(self.path, **arguments)
        finally:
            self.peak = max(self.peak, tracemalloc.get_traced_memory()[1] - before)

    def outcome(self, data: bytes, sealed: bool, **arguments: Any) -> str:
        """Load a file and name the outcome; raise an AssertionError for one that must not be."""
        try:
            loaded = self.measured(**arguments)
        except ValueError as error:
            if str(self.path) not in str(error):
                raise AssertionError(f"the file is not named: {error}") from error
            return reason(str(error))
        found = described(loaded)
        if found == self.sound:
            return "as stored"
        if not sealed:
            raise AssertionError("damage that the checksum should have shown")
        if found != slowly(data):
            raise AssertionError("wrong masks or values")
        return "other masks or values, rightly read"


def reason(message: str) -> str:
    """Remove from a message what differs between files."""
    rest = message.partition("cannot be loaded: ")[2]
    return re.sub(r"-?\d+", "n", re.sub(r"'[^']*'|\[[^]]*\]|\([^)]*\)", "…", rest))


def run(folder: Path, files: int, seed: int = 0) -> dict[str, Any]:
    """Damage files, load them with and without `like`, and count the outcomes."""
    rng, cases = np.random.default_rng(seed), [Case(folder, kind) for kind in ("masks", "sparse")]
    counts = {"without like": collections.Counter(), "with like": collections.Counter()}
    start = time.perf_counter()
    tracemalloc.start()
    for _ in range(files):
        case, sealed = cases[rng.integers(2)], bool(rng.random() < 0.6)
        data = case.data
        for _ in range(int(rng.integers(1, 3))):
            # After a first damage, there may be no header to edit.
            damage = DAMAGES[rng.integers(len(DAMAGES))] if data is case.data else flip
            data = damage(data, rng) or b"\0"
        data = seal(data) if sealed else data
        case.path.write_bytes(data)
        for name, arguments in (
            ("without like", {"limit": LIMIT}),
            ("with like", {"like": case.like}),
        ):
            counts[name][case.outcome(data, sealed, **arguments)] += 1
    tracemalloc.stop()
    seconds = time.perf_counter() - start
    peak = max(case.peak for case in cases)
    outcomes = {name: dict(count.most_common()) for name, count in counts.items()}
    return {"files": files, "seconds": round(seconds), "most bytes of a load": peak, **outcomes}


def main() -> None:
    """Run, store, print."""
    with tempfile.TemporaryDirectory() as folder:
        report = run(Path(folder), int(sys.argv[1]) if len(sys.argv) > 1 else FILES)
    print(json.dumps(report, indent=2, ensure_ascii=False))
    if report["files"] == FILES:
        with replacing(RESULT) as path:
            path.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
