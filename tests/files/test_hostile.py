"""Files that are no files, files that claim too much, and what a killed writer leaves."""

import os
import stat
import subprocess
import sys
import tracemalloc
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

import synflow_jax as sf
from synflow_jax import files

unix = pytest.mark.skipif(os.name == "nt", reason="Windows has no pipes in folders, and no modes")
ODD = np.array([2, 0, 1, 255], np.uint8).view(bool)
READERS = {
    "masks": sf.load_masks,
    "sparse": files.load_sparse,
    "arrays.npz": files.load_arrays,
    "arrays.safetensors": files.load_arrays,
}


@unix
@pytest.mark.parametrize("name", READERS)
def test_what_is_no_regular_file_is_refused_at_once(name, tmp_path):
    path = tmp_path / name
    os.mkfifo(path)
    with pytest.raises(ValueError, match=r"must be a regular file, and .* is a pipe"):
        READERS[name](path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=r"must be a regular file, and .* is a device"):
        READERS[name](path)


@unix
def test_a_pipe_is_not_replaced(tmp_path):
    for name in ("masks", "arrays.npz"):
        path = tmp_path / name
        os.mkfifo(path)
        save = sf.save_masks if name == "masks" else files.save_arrays
        with pytest.raises(ValueError, match="must be a regular file"):
            save(path, {"a": np.ones(2, bool)})
        assert stat.S_ISFIFO(path.stat().st_mode)


def test_bools_that_are_neither_0_nor_1_are_refused(tmp_path):
    np.savez(tmp_path / "odd.npz", a=ODD)
    safetensors.numpy.save_file({"a": ODD}, tmp_path / "odd.safetensors")
    for name in ("odd.npz", "odd.safetensors"):
        with pytest.raises(ValueError, match="'a' has a bool that is neither 0 nor 1"):
            files.load_arrays(tmp_path / name)
    with pytest.raises(ValueError, match="'w' must hold 0 and 1 alone"):
        files.from_torch({"w": ODD}, {"w": np.ones(4)}, {"w": "w"})


def test_members_that_are_no_arrays_and_broken_ends_are_refused(tmp_path):
    path = tmp_path / "odd.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello.txt", "hi")
    with pytest.raises(ValueError, match=r"it holds 'hello.txt', which is no \.npy"):
        files.load_arrays(path)
    np.savez(path, a=np.ones(3))
    whole = path.read_bytes()
    for broken in (whole[:-10] + b"\xff" * 4 + whole[-6:], whole[:-3], whole[:100]):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match="cannot be loaded"):
            files.load_arrays(path)
    with zipfile.ZipFile(path, "w") as archive, archive.open("a.npy", "w") as member:
        named = {"descr": "<f4", "fortran_order": False, "shape": (2**40,)}
        np.lib.format.write_array_header_1_0(member, named)
    with pytest.raises(ValueError, match="not as many bytes as its header says"):
        files.load_arrays(path)


def test_a_small_file_of_many_zeros_asks_for_memory_first(tmp_path):
    path = tmp_path / "zeros.npz"
    files.save_arrays(path, {"a": np.zeros(2**22, np.uint8)})
    assert path.stat().st_size < 2**14
    with pytest.raises(ValueError, match=r"asks for 41\d+ bytes, limit allows 4000000: pass more"):
        files.load_arrays(path, limit=4_000_000)
    assert files.load_arrays(path, limit=2**23)["a"].size == 2**22


def test_a_header_of_many_leaves_is_not_read_beyond_the_limit(tmp_path):
    path = tmp_path / "many"
    many = {f"leaf{k}": np.ones(1, bool) for k in range(50_000)}
    sf.save_masks(path, many)
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"its header of .* bytes takes up to .* limit allows 0"):
        sf.load_masks(path, limit=0)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < path.stat().st_size
    assert len(sf.load_masks(path, many)) == len(many)


UNREADABLE = {
    ".npz": {
        "a name that NumPy changes": ({"a": np.ones(2), "a.npy": np.zeros(3)}, "'a.npy'"),
        "a name with a NUL": ({"a\0b": np.ones(2)}, "not printable"),
        "bfloat16": ({"a": np.ones(2, jnp.bfloat16)}, "it has no bfloat16: take .safetensors"),
        "float8": ({"a": np.ones(2, jnp.float8_e4m3fn)}, "it has no float8_e4m3fn"),
    },
    ".safetensors": {
        "the name of metadata": ({"__metadata__": np.ones(2)}, "kept for metadata"),
        "a name with a NUL": ({"a\0b": np.ones(2)}, "not printable"),
        "strings": ({"a": np.array(["x"])}, "which is unchanged"),
        "complex128": ({"a": np.ones(2, complex)}, "which is unchanged"),
        "another byte order": ({"a": np.ones(2, ">f4")}, "cannot be read back"),
    },
}


@pytest.mark.parametrize(
    ("suffix", "kind"), [(suffix, kind) for suffix, kinds in UNREADABLE.items() for kind in kinds]
)
def test_what_could_not_be_read_back_is_not_saved(suffix, kind, tmp_path):
    arrays, words = UNREADABLE[suffix][kind]
    path = tmp_path / f"file{suffix}"
    files.save_arrays(path, {"old": np.ones(1)})
    before = path.read_bytes()
    with pytest.raises(ValueError, match="arrays") as caught:
        files.save_arrays(path, arrays)
    assert words in str(caught.value)
    assert "writing" not in str(caught.value)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


@unix
def test_a_link_to_a_file_of_another_name_is_followed(tmp_path):
    link = tmp_path / "link.npz"
    link.symlink_to(tmp_path / "blob")
    files.save_arrays(link, {"a\u00a0": np.ones(2)})
    assert link.is_symlink()
    assert files.load_arrays(link)["a\u00a0"].tolist() == [1.0, 1.0]


def test_bfloat16_is_kept_by_safetensors(tmp_path):
    half = np.arange(5).astype(jnp.bfloat16)
    files.save_arrays(tmp_path / "a.safetensors", {"a": half, "a/b": np.zeros(0)})
    found = files.load_arrays(tmp_path / "a.safetensors")
    assert found["a"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(found["a"], half)


def test_two_leaves_of_one_path_are_refused_by_both_converters():
    twice = {"a/b": np.ones(2, bool), "a": {"b": np.zeros(2, bool)}}
    with pytest.raises(ValueError, match=r"masks must have a different path .* 'a/b'"):
        files.to_torch(twice, str)
    with pytest.raises(ValueError, match=r"like must have a different path .* 'a/b'"):
        files.from_torch({"a/b": np.ones(2)}, twice, {"a/b": "a/b"})


@unix
def test_a_new_file_keeps_the_permissions_of_the_old_one(tmp_path):
    fresh = tmp_path / "fresh"
    fresh.touch()
    usual = stat.S_IMODE(fresh.stat().st_mode)
    arrays, masks = {"a": np.ones(2)}, {"a": np.ones(2, bool)}
    for name in ("a.npz", "a.safetensors", "masks"):
        path = tmp_path / name
        save = sf.save_masks if name == "masks" else files.save_arrays
        given = masks if name == "masks" else arrays
        save(path, given)
        assert stat.S_IMODE(path.stat().st_mode) == usual
        path.chmod(0o600)
        save(path, given)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


WRITER = """
import os, sys
import numpy as np
import synflow_jax as sf

def stop(descriptor):
    print("writing", flush=True)
    os.kill(os.getpid(), 9) if sys.argv[2] == "killed" else sys.stdin.read()

os.fsync = stop
sf.save_masks(sys.argv[1], {"a": np.ones(3, bool)})
"""


def writing(folder):
    return {name for name in os.listdir(folder) if name.startswith(".writing-")}


@unix
def test_what_killed_writers_leave_is_swept_and_living_ones_keep_theirs(tmp_path):
    path, other = tmp_path / "masks", tmp_path / "other"
    path.write_text("old")
    command = [sys.executable, "-c", WRITER]
    subprocess.run([*command, path, "killed"], check=False, stdout=subprocess.DEVNULL)
    left = writing(tmp_path)
    assert len(left) == 1
    assert path.read_text() == "old"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([*command, other, "waiting"], **pipes) as process:
        assert process.stdout.readline() == b"writing\n"
        living = writing(tmp_path)
        assert len(living - left) == 1
        assert not living & left  # the second writer has removed what the first one left
        sf.save_masks(path, {"a": np.ones(2, bool)})
        assert writing(tmp_path) == living
        process.communicate()
    assert sorted(os.listdir(tmp_path)) == ["masks", "other"]
    assert sf.load_masks(other)["a"].tolist() == [True] * 3
    assert sf.load_masks(path)["a"].tolist() == [True] * 2


def test_long_names_are_clipped_in_messages(tmp_path):
    sf.save_masks(tmp_path / "masks", {"x" * 1_000_000: np.ones(2, bool)})
    with pytest.raises(ValueError, match="it does not fit like") as caught:
        sf.load_masks(tmp_path / "masks", {"y" * 1_000_000: np.ones(2, bool)})
    assert len(str(caught.value)) < 2500
