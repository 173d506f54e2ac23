"""What files of masks do not fit, and damaged ones: refused by name, and believed in nothing."""

import json

import jax
import numpy as np
import pytest

import synflow_jax as sf
from benchmarks.exact import fuzz_masks
from synflow_jax.files import _format as packed
from tests.support.meshes import differ


def draw(*shape):
    return np.random.default_rng(0).random(shape) < 0.3


LIKE = {"a": {"w": np.ones((4, 6), np.float32)}, "b": np.ones(3, np.float32)}
FITTING = {"a": {"w": draw(4, 6)}, "b": np.ones(3, bool)}


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ({"a": LIKE["a"]}, r"only the file has \['b'\]"),
        (LIKE | {"c": LIKE["b"]}, r"only like has \['c'\]"),
        (LIKE | {"b": np.ones((3, 1))}, r"'b' is \(3,\) in it and \(3, 1\) in like"),
    ],
)
def test_a_like_of_another_shape_is_refused(like, message, tmp_path):
    sf.save_masks(tmp_path / "masks", FITTING)
    sf.files.save_sparse(tmp_path / "net", LIKE, FITTING)
    for load, name in ((sf.load_masks, "masks"), (sf.files.load_sparse, "net")):
        with pytest.raises(ValueError, match=f"{name}' cannot be loaded.*{message}"):
            load(tmp_path / name, like)


def test_what_makes_no_sense_is_refused(tmp_path):
    path, net = tmp_path / "masks", tmp_path / "net"
    sf.save_masks(path, FITTING)
    sf.files.save_sparse(net, LIKE, FITTING)
    other = jax.tree.map(lambda leaf: leaf.astype(np.float16), LIKE)
    wide = jax.tree.map(lambda leaf: leaf.astype(np.float64), LIKE)
    sf.files.save_sparse(tmp_path / "wide", wide, FITTING)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, np.float64), wide)
    key = {"k": jax.random.key(0)}
    for call, error, message in (
        (
            lambda: sf.files.load_sparse(net, other),
            ValueError,
            "'a/w' is float32 in it and float16",
        ),
        (lambda: sf.files.load_sparse(tmp_path / "wide", shapes), ValueError, "jax_enable_x64"),
        (lambda: sf.files.load_sparse(path), ValueError, "it is one for load_masks"),
        (lambda: sf.load_masks(net), ValueError, "it is one for load_sparse"),
        (lambda: sf.load_masks(path, limit=26), ValueError, "27 bytes, limit allows 26"),
        (lambda: sf.files.load_sparse(net, limit=134), ValueError, "135 bytes, limit allows 134"),
        (lambda: sf.load_masks(path, {"a": 1.0}), TypeError, "like must be a pytree of arrays"),
        (lambda: sf.load_masks(tmp_path / "gone"), FileNotFoundError, "gone"),
        (lambda: sf.save_masks(path / "in", FITTING), FileNotFoundError, "folder that .*masks/in'"),
        (lambda: sf.save_masks(tmp_path, FITTING), IsADirectoryError, "path must be a file, and"),
        (lambda: sf.save_masks(path, LIKE), TypeError, "masks must be bool arrays"),
        (lambda: sf.save_masks(path, {"a/b": draw(2), "a": {"b": draw(2)}}), ValueError, "'a/b'"),
        (
            lambda: sf.files.save_sparse(net, LIKE, {"a": FITTING["a"]}),
            ValueError,
            "tree structure",
        ),
        (lambda: sf.files.save_sparse(net, key, {"k": np.array(True)}), TypeError, "key_data"),
        (lambda: jax.jit(lambda m: sf.save_masks(path, m))(FITTING), TypeError, "outside of jit"),
    ):
        with pytest.raises(error, match=message):
            call()
    assert differ(sf.load_masks(path, FITTING), FITTING) == 0


def rewritten(path, rows, body=b""):
    packed.write(path, packed.MASKS, rows, [body])
    return path


@pytest.mark.parametrize(
    ("row", "body", "message"),
    [
        (["w", [2**40], 0, 0, None], b"", "limit allows"),
        (["w", [2**40], 2**40, 0, None], b"", "limit allows"),
        (["w", [0, 2**70], 0, 0, None], b"", "no list of"),
        (["w", [1] * 70, 1, 0, None], b"", "no list of"),
        (["w", [-8], 0, 0, None], b"", "no list of"),
        (["w", [8], True, 1, None], b"\x80", "no list of"),
        (["w", [8.0], 1, 1, None], b"\x80", "no list of"),
        (["w", [8], 9, 0, None], b"", "no list of"),
        (["w", [8], 8, 1, None], b"\xff", "no list of"),
        (["w", [8], 1, 2, None], b"\x80\x00", "no list of"),
        (["w", [8], 1, 1, "float32"], b"\x80", "no list of"),
        (["w", [8], 2, 1, None], b"\x80", "keeps 1 entries, its header says 2"),
        (["w", [4], 1, 1, None], b"\x81", "bits beyond its end"),
        (["w", [80], 1, 1, None], b"\x50", "beyond its end"),
        (["w", [800], 0, 1, None], b"\xff", "beyond its end"),
        (["w", [80], 2, 1, None], b"\x05", "keeps 1 entries, its header says 2"),
        (["w", [8], 1, 1, None], b"\x80\x00", "bytes, its header asks for"),
        (["w", [8], 1, 1, None], b"", "bytes, its header asks for"),
    ],
)
def test_a_header_is_believed_in_nothing(row, body, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        sf.load_masks(rewritten(tmp_path / "masks", [row], body))


def test_a_bool_that_is_none_is_refused(tmp_path):
    packed.write(tmp_path / "net", packed.SPARSE, [["w", [2], 2, 0, "bool"]], [b"\x01\x02"])
    with pytest.raises(ValueError, match="'w' has a bool that is neither 0 nor 1"):
        sf.files.load_sparse(tmp_path / "net")


def test_a_wild_header_is_an_error(tmp_path, monkeypatch):
    path = tmp_path / "masks"
    for header in ("[" * 10**6, "[[", "{}", "1" * 5000, "[1e999]", '["\\ud800"]', "nul"):
        monkeypatch.setattr(json, "dumps", lambda *_, header=header, **__: header)
        packed.write(path, packed.MASKS, [], [])
        with pytest.raises(ValueError, match="masks' cannot be loaded: its header is no"):
            sf.load_masks(path)
    monkeypatch.undo()
    row = ["w", [8], 8, 0, None]
    for rows, message in (([row, row], "names a leaf twice"), ([row[:4]], "no list of")):
        with pytest.raises(ValueError, match=message):
            sf.load_masks(rewritten(path, rows))
    path.write_bytes(path.read_bytes()[:8] + b"\x02" + path.read_bytes()[9:])
    with pytest.raises(ValueError, match="its version is 2, and this library reads 1"):
        sf.load_masks(path)


def test_a_header_that_is_too_long_is_neither_written_nor_read(tmp_path):
    path, masks = tmp_path / "masks", {"w" * packed.LONGEST: np.ones(1, bool)}
    with pytest.raises(ValueError, match=r"would take 41943\d\d bytes: too many"):
        sf.save_masks(path, masks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed, "LONGEST", 2 * packed.LONGEST)
        sf.save_masks(path, masks)
    with pytest.raises(ValueError, match="longer than the file or than 4194304"):
        sf.load_masks(path)


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
