"""Files of masks and of kept weights: every bit comes back, in the bytes that are promised."""

import os
import pathlib
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx
from flax.core import freeze
from hypothesis import given, settings
from hypothesis import strategies as st

import synflow_jax as sf
from synflow_jax.files import DTYPES, decode, encode
from tests.support.meshes import differ, mesh_of, same_layout, spread
from tests.support.nets import mlp_params


def draw(*shape, density=0.3, seed=0):
    return np.random.default_rng(seed).random(shape) < density


def thin(params):
    """Keep some entries of every kernel; each mask lies as its leaf does."""

    def one(leaf):
        mask = draw(*leaf.shape, density=0.2 if leaf.ndim > 1 else 1)
        return jax.device_put(mask, leaf.sharding)

    return jax.tree.map(one, params)


def header_of(path):
    """Return the length of a file's prefix and header in bytes."""
    return 48 + int.from_bytes(path.read_bytes()[12:16], "little")


def code_size(mask):
    """Count the promised bytes of a mask, entry by entry."""
    size, gap = 0, 0
    for kept in np.ravel(mask).tolist():
        size += 1 + gap // 255 if kept else 0
        gap = 0 if kept else gap + 1
    return 0 if mask.all() else min(-(-mask.size // 8), size)


@pytest.mark.parametrize("density", [0, 1e-3, 1e-2, 0.1, 0.124, 0.5, 0.99, 1])
def test_masks_come_back_in_the_bytes_promised(density, tmp_path):
    masks = {"a": draw(70, 90, density=density), "b": [draw(3, 3, 5, 7, density=density)]}
    masks |= {"scalar": np.array(True), "none": np.ones((0, 4), bool), "whole": np.ones(90, bool)}
    path, leaves = tmp_path / "masks", jax.tree.leaves(masks)
    sf.save_masks(path, masks)
    assert path.stat().st_size == header_of(path) + sum(map(code_size, leaves))
    assert path.stat().st_size <= header_of(path) + sum(-(-mask.size // 8) for mask in leaves)
    loaded, flat = sf.load_masks(path, masks), sf.load_masks(str(path))
    assert jax.tree.structure(loaded) == jax.tree.structure(masks)
    assert list(flat) == ["a", "b/0", "none", "scalar", "whole"]
    for mask, one, other in zip(leaves, jax.tree.leaves(loaded), flat.values(), strict=True):
        assert one.dtype == other.dtype == bool
        np.testing.assert_array_equal(one, mask, strict=True)
        np.testing.assert_array_equal(other, mask, strict=True)


@settings(derandomize=True, database=None, max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 1000), max_size=40), st.integers(0, 600), st.booleans())
def test_every_mask_is_its_code(gaps, rest, turned):
    """Runs of any length, at the borders of a byte, of 255 and of the shorter of two codes."""
    mask = np.concatenate([*(np.arange(gap + 1) == gap for gap in gaps), np.zeros(rest, bool)])
    mask = mask ^ turned
    code = encode(mask)
    assert len(code) == code_size(mask)
    kept = np.count_nonzero(mask)
    np.testing.assert_array_equal(decode(memoryview(code), mask.size, kept), mask)


def any_bits(name, *shape):
    """Draw raw bits, so that NaN, infinity and -0 are among the values."""
    dtype = DTYPES[name]
    raw = np.random.default_rng(1).integers(0, 256, (*shape, dtype.itemsize), np.uint8)
    return (raw % 2 if name == "bool" else raw).view(dtype)[..., 0]


def as_bits(array):
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def test_kept_values_of_every_dtype_come_back_to_the_bit(tmp_path):
    params = {name: any_bits(name, 40, 30) for name in DTYPES}
    floating = {name: jnp.issubdtype(params[name].dtype, jnp.floating) for name in params}
    masks = {name: draw(40, 30, density=0.1) | (not floating[name]) for name in params}
    path = tmp_path / "net"
    sf.files.save_sparse(path, params, masks)
    values = sum(int(masks[name].sum()) * params[name].itemsize for name in params)
    assert path.stat().st_size == header_of(path) + values + sum(map(code_size, masks.values()))
    for loaded, found in (sf.files.load_sparse(path, params), sf.files.load_sparse(path)):
        assert differ(found, masks) == 0
        for name, leaf in loaded.items():
            want = np.where(masks[name], params[name], np.zeros((), leaf.dtype))
            np.testing.assert_array_equal(as_bits(leaf), as_bits(want), err_msg=name)


def test_a_sparse_checkpoint_is_the_pruned_params(tmp_path):
    params = mlp_params(0, dtype=jnp.bfloat16)
    params["layer0"]["steps"] = jnp.arange(3)
    masks = thin(params)
    sf.files.save_sparse(tmp_path / "net", params, masks)
    shapes = jax.eval_shape(lambda: params)
    for like in (params, shapes):
        loaded, found = sf.files.load_sparse(tmp_path / "net", like)
        assert differ(loaded, sf.apply_masks(params, masks)) == 0
        assert differ(found, masks) == 0
        dtypes = jax.tree.map(
            lambda a, b: isinstance(a, jax.Array) and a.dtype == b.dtype, *(loaded, params)
        )
        assert jax.tree.all(dtypes)


@pytest.mark.parametrize("kind", ["auto", "explicit"])
def test_what_is_loaded_lies_as_like_does(kind, tmp_path):
    mesh = mesh_of(kind)
    params = spread(mlp_params(0, widths=(8, 64, 4)), mesh, "both")
    masks = thin(params)
    sf.save_masks(tmp_path / "masks", masks)
    sf.files.save_sparse(tmp_path / "net", params, masks)
    shapes = jax.tree.map(
        lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype, sharding=p.sharding), params
    )
    for like in (params, shapes):
        found = sf.load_masks(tmp_path / "masks", like)
        assert same_layout(params, found)
        assert differ(found, masks) == 0
        loaded, found = sf.files.load_sparse(tmp_path / "net", like)
        assert same_layout(params, loaded)
        assert same_layout(params, found)
        assert differ(loaded, sf.apply_masks(params, masks)) == 0


def test_any_tree_of_one_set_of_paths_will_do(tmp_path):
    masks = thin(mlp_params(0))
    sf.save_masks(tmp_path / "masks", freeze(masks))
    assert differ(sf.load_masks(tmp_path / "masks", masks), masks) == 0
    state = nnx.state(nnx.Linear(5, 3, rngs=nnx.Rngs(0)))
    kept = thin(state)
    sf.save_masks(tmp_path / "nnx", kept)
    assert list(sf.load_masks(tmp_path / "nnx")) == ["bias", "kernel"]
    assert differ(sf.load_masks(tmp_path / "nnx", state), kept) == 0
    key = {"key": jax.random.key(0), "w": jnp.ones((4, 2))}
    sf.save_masks(tmp_path / "keys", thin(key))
    assert int(sf.load_masks(tmp_path / "keys", key)["w"].sum()) == int(thin(key)["w"].sum())


def test_orbax_needs_no_special_code(tmp_path):
    params = spread(mlp_params(0, widths=(8, 64, 4)), mesh_of("explicit"), "both")
    masks = thin(params)
    with jax.numpy_dtype_promotion("standard"):
        tx = sf.keep_masks(optax.adamw(1e-2), masks)
        tree = {"masks": masks, "state": tx.init(params)}
    with ocp.StandardCheckpointer() as saver:
        saver.save(tmp_path / "one", tree)
        saver.wait_until_finished()
        loaded = saver.restore(tmp_path / "one", jax.tree.map(jnp.zeros_like, tree))
    assert differ(loaded, tree) == 0
    for found in (loaded["masks"], loaded["state"].masks):
        assert same_layout(params, found)
        assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(bool)}


class Stop(BaseException):
    """Comes between two system calls, as a signal does."""


@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_a_write_that_is_stopped_leaves_the_old_file(where, tmp_path, monkeypatch):
    path = tmp_path / "masks"
    sf.save_masks(path, {"w": draw(20)})
    before = path.read_bytes()

    def stop(*_):
        raise Stop

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(os if where == "fsync" else pathlib.Path, where, stop)
        sf.save_masks(path, {"w": draw(3000)})
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["masks"]


KILLED = """
import os, signal, sys
import numpy as np
import synflow_jax as sf
os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)
sf.save_masks(sys.argv[1], {"w": np.ones(8, bool)})
"""


def test_a_process_that_is_killed_leaves_the_old_file(tmp_path):
    path, old = tmp_path / "masks", {"w": draw(20)}
    sf.save_masks(path, old)
    ended = subprocess.run([sys.executable, "-c", KILLED, path])
    assert ended.returncode == -signal.SIGKILL
    assert differ(sf.load_masks(path, old), old) == 0


def test_a_file_takes_the_place_a_link_points_to_and_can_be_read_by_others(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder" / "masks")
    sf.save_masks(tmp_path / "link", {"w": draw(20)})
    assert (tmp_path / "link").is_symlink()
    (tmp_path / "plain").touch()
    modes = {p.stat().st_mode for p in (tmp_path / "link", tmp_path / "plain")}
    assert len(modes) == 1
