"""Damaged files of masks: refused by name, and believed in nothing."""

import json
from functools import partial

import numpy as np
import pytest

import synflow_jax as sf
from benchmarks.exact import fuzz_masks
from synflow_jax.files import LONGEST, MASKS, SPARSE, write
from tests.support.refusals import check_refused, each


def load(row, body=b""):
    """Load masks from a file of one leaf, whose header has this row, and whose code is this."""

    def call(folder):
        write(folder / "masks", MASKS, [row], [body])
        sf.load_masks(folder / "masks")

    return call


def load_twice_named(folder):
    row = ["w", [8], 8, 0, None]
    write(folder / "masks", MASKS, [row, row], [b""])
    sf.load_masks(folder / "masks")


def load_bools(folder):
    write(folder / "masks", SPARSE, [["w", [2], 2, 0, "bool"]], [b"\x01\x02"])
    sf.files.load_sparse(folder / "masks")


def load_changed(change):
    """Load a good file after a change of its bytes."""

    def call(folder):
        path = folder / "masks"
        sf.save_masks(path, {"w": np.ones(8, bool)})
        path.write_bytes(change(path.read_bytes()))
        sf.load_masks(path)

    return call


def with_long_header(content):
    """Announce a header that is too long, and give the file as many bytes."""
    length = LONGEST + 1
    return content[:12] + length.to_bytes(4, "little") + content[16:] + b" " * length


NO_LIST = "its header is no list of [path, shape, kept, coded, dtype]"
SHORT = "bytes, its header asks for"
ROWS = [
    ("2^40 entries, none kept", load(["w", [2**40], 0, 0, None]), "limit allows"),
    ("2^40 entries, all kept", load(["w", [2**40], 2**40, 0, None]), "limit allows"),
    ("an axis past NumPy behind one of 0", load(["w", [0, 2**70], 0, 0, None]), NO_LIST),
    ("70 axes", load(["w", [1] * 70, 1, 0, None]), NO_LIST),
    ("an axis below 0", load(["w", [-8], 0, 0, None]), NO_LIST),
    ("True for a count", load(["w", [8], True, 1, None], b"\x80"), NO_LIST),
    ("a float for an axis", load(["w", [8.0], 1, 1, None], b"\x80"), NO_LIST),
    ("more kept than there are", load(["w", [8], 9, 0, None]), NO_LIST),
    ("a code where all is kept", load(["w", [8], 8, 1, None], b"\xff"), NO_LIST),
    ("a code longer than bits", load(["w", [8], 1, 2, None], b"\x80\x00"), NO_LIST),
    ("values in a file of masks", load(["w", [8], 1, 1, "float32"], b"\x80"), NO_LIST),
    ("four items for a leaf", load(["w", [8], 8, 0]), NO_LIST),
    ("fewer bits than said", load(["w", [8], 2, 1, None], b"\x80"), "keeps 1 entries", "says 2"),
    ("bits beyond the end", load(["w", [4], 1, 1, None], b"\x81"), "bits beyond its end"),
    ("a gap beyond the end", load(["w", [80], 1, 1, None], b"\x50"), "beyond its end"),
    ("a gap without an end", load(["w", [800], 0, 1, None], b"\xff"), "beyond its end"),
    ("fewer gaps than said", load(["w", [80], 2, 1, None], b"\x05"), "keeps 1 entries", "says 2"),
    ("a byte too many", load(["w", [8], 1, 1, None], b"\x80\x00"), SHORT),
    ("a byte too few", load(["w", [8], 1, 1, None]), SHORT),
    ("a leaf twice", load_twice_named, "its header names a leaf twice"),
    ("a bool that is 2", load_bools, "'w' has a bool that is neither 0 nor 1"),
    (
        "another version",
        load_changed(lambda content: content[:8] + b"\x02" + content[9:]),
        "its version is 2, and this library reads 1",
    ),
    (
        "too long a header",
        load_changed(with_long_header),
        f"longer than the file or than {LONGEST}",
    ),
]


@each([(name, call, ValueError, "masks' cannot be loaded", *named) for name, call, *named in ROWS])
def test_a_header_is_believed_in_nothing(call, error, named, tmp_path):
    check_refused(partial(call, tmp_path), error, named)


HEADERS = ("[" * 10**6, "[[", "{}", "1" * 5000, "[1e999]", '["\\ud800"]', "nul")


@pytest.mark.parametrize("header", HEADERS, ids=[header[:9] for header in HEADERS])
def test_a_wild_header_is_refused(header, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(json, "dumps", lambda *_, **__: header)
        write(tmp_path / "masks", MASKS, [], [])
    check_refused(
        lambda: sf.load_masks(tmp_path / "masks"),
        ValueError,
        ["masks' cannot be loaded: its header is no"],
    )


def test_a_header_that_is_too_long_is_not_written(tmp_path):
    masks = {"w" * LONGEST: np.ones(1, bool)}
    check_refused(
        lambda: sf.save_masks(tmp_path / "masks", masks),
        ValueError,
        ["the header of", "would take 41943", "too many"],
    )
    assert not [*tmp_path.iterdir()]


def test_a_thousand_damaged_files(tmp_path):
    """Each is refused by name or read as it is; what must not be raises inside of run."""
    report = fuzz_masks.run(tmp_path, 1000, seed=1)
    for counts in (report["without like"], report["with like"]):
        assert sum(counts.values()) == 1000
        assert len(counts) > 10  # all the ways to say no
        assert counts["other masks or values, rightly read"] > 30
    assert report["most bytes of a load"] < 2 * fuzz_masks.LIMIT


def test_the_committed_run_of_damaged_files_is_whole():
    report = json.loads(fuzz_masks.RESULT.read_text())
    assert report["files"] == fuzz_masks.FILES
    for counts in (report["without like"], report["with like"]):
        assert sum(counts.values()) == fuzz_masks.FILES
    assert report["most bytes of a load"] < 2 * fuzz_masks.LIMIT
