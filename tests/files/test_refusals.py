"""What cannot be written, read or converted is refused, and no file is touched."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import synflow_jax as sf
from tests.support.meshes import differ
from tests.support.refusals import check_refused, each


def draw(*shape):
    return np.random.default_rng(0).random(shape) < 0.3


def cast(tree, dtype):
    return jax.tree.map(lambda leaf: leaf.astype(dtype), tree)


LIKE = {"a": {"w": np.ones((4, 6), np.float32)}, "b": np.ones(3, np.float32)}
FITTING = {"a": {"w": draw(4, 6)}, "b": np.ones(3, bool)}


@pytest.fixture
def folder(tmp_path):
    """A folder with a file of masks and one of kept weights, which stay as they are."""
    sf.save_masks(tmp_path / "masks", FITTING)
    sf.files.save_sparse(tmp_path / "net", LIKE, FITTING)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    yield tmp_path
    assert {path: path.read_bytes() for path in before} == before
    assert differ(sf.load_masks(tmp_path / "masks", FITTING), FITTING) == 0


def load(name, like=None, **options):
    reader = {"masks": sf.load_masks, "net": sf.files.load_sparse}[name]
    return lambda folder: reader(folder / name, like, **options)


def load_wide(folder):
    """Load float64 on a device where x64 is off."""
    wide = cast(LIKE, np.float64)
    sf.files.save_sparse(folder / "wide", wide, FITTING)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), wide)
    sf.files.load_sparse(folder / "wide", shapes)


LIKES = {
    "a leaf less": ({"a": LIKE["a"]}, "only the file has ['b']"),
    "a leaf more": (LIKE | {"c": LIKE["b"]}, "only like has ['c']"),
    "another shape": (LIKE | {"b": np.ones((3, 1))}, "'b' is (3,) in it and (3, 1) in like"),
}
KEY = {"k": jax.random.key(0)}
LOADED = [
    *(
        (
            f"{name}, like has {case}",
            load(name, like),
            ValueError,
            f"{name}' cannot be loaded",
            said,
        )
        for case, (like, said) in LIKES.items()
        for name in ("masks", "net")
    ),
    (
        "like of another dtype",
        load("net", cast(LIKE, np.float16)),
        ValueError,
        "'a/w' is float32 in it and float16 in like",
    ),
    ("float64 without x64", load_wide, ValueError, "'a/w' is float64", "enable jax_enable_x64"),
    (
        "masks for a network",
        lambda folder: sf.files.load_sparse(folder / "masks"),
        ValueError,
        "masks' cannot be loaded",
        "it is one for load_masks",
    ),
    (
        "a network for masks",
        lambda folder: sf.load_masks(folder / "net"),
        ValueError,
        "net' cannot be loaded",
        "it is one for load_sparse",
    ),
    (
        "more masks than the limit",
        load("masks", limit=26),
        ValueError,
        "asks for 27 bytes, limit allows 26",
        "pass like, or more",
    ),
    (
        "more weights than the limit",
        load("net", limit=134),
        ValueError,
        "asks for 135 bytes, limit allows 134",
        "pass like, or more",
    ),
    (
        "a number in like",
        load("masks", {"a": 1.0}),
        TypeError,
        "like must be a pytree of arrays",
        "got a float",
    ),
    ("no file", lambda folder: sf.load_masks(folder / "gone"), FileNotFoundError, "gone"),
]
SAVED = [
    (
        "a file for a folder",
        lambda folder: sf.save_masks(folder / "masks" / "in", FITTING),
        FileNotFoundError,
        "path must lie in a folder",
        "masks/in'",
    ),
    (
        "a folder for a file",
        lambda folder: sf.save_masks(folder, FITTING),
        IsADirectoryError,
        "path must be a file, and",
        "is a folder",
    ),
    (
        "params for masks",
        lambda folder: sf.save_masks(folder / "masks", LIKE),
        TypeError,
        "masks must be bool arrays",
        "'a/w' is float32",
    ),
    (
        "two leaves of one path",
        lambda folder: sf.save_masks(folder / "masks", {"a/b": draw(2), "a": {"b": draw(2)}}),
        ValueError,
        "masks must have a different path for each leaf",
        "'a/b' is the path of two",
    ),
    (
        "masks of another tree",
        lambda folder: sf.files.save_sparse(folder / "net", LIKE, {"a": FITTING["a"]}),
        ValueError,
        "masks must have the tree structure of params",
    ),
    (
        "a random key",
        lambda folder: sf.files.save_sparse(folder / "net", KEY, {"k": np.array(True)}),
        TypeError,
        "params must have dtypes that a file can hold",
        "'k' is key<fry>",
        "jax.random.key_data(key)",
    ),
    (
        "masks under jit",
        lambda folder: jax.jit(lambda m: sf.save_masks(folder / "masks", m))(FITTING),
        TypeError,
        "masks is traced",
        "outside of jit",
    ),
]


def save_arrays(arrays, suffix):
    return lambda folder: sf.files.save_arrays(folder / f"arrays.{suffix}", arrays)


def load_pickles(folder):
    np.savez(folder / "bad.npz", weight=np.array([{}, None], object))
    sf.files.load_arrays(folder / "bad.npz")


MASK = np.ones(2, bool)
ARRAYS = [
    *(
        (f"{case}, in a .{suffix}", save_arrays(arrays, suffix), TypeError, "arrays must be", said)
        for suffix in ("npz", "safetensors")
        for case, arrays, said in (
            ("a list", [MASK], "got a list"),
            ("a tree", {"fc": {"kernel": MASK}}, "'fc' is a dict; to_torch makes one"),
            ("a number for a name", {3: MASK}, "3 is a ndarray"),
        )
    ),
    (
        "a suffix of PyTorch",
        save_arrays({"fc": MASK}, "pt"),
        ValueError,
        "path must end in .npz or .safetensors",
        "arrays.pt'",
    ),
    ("pickles", load_pickles, ValueError, "bad.npz' cannot be loaded", "allow_pickle"),
    *(
        (
            f"no .{suffix}",
            lambda folder, name=f"none.{suffix}": sf.files.load_arrays(folder / name),
            FileNotFoundError,
            f"none.{suffix}",
        )
        for suffix in ("npz", "safetensors")
    ),
]
HALF = {"w": np.ones((3, 2), np.float16)}
SOME = {"w": np.array([[True, False]] * 3)}
WHOLE, NAMES = {"w": np.ones((3, 2), bool)}, {"w": "fc"}
ONES = np.ones((2, 3), bool)


def from_torch(arrays):
    return lambda _: sf.files.from_torch(arrays, WHOLE, NAMES)


TORCH = [
    (
        "params for masks of PyTorch",
        lambda _: sf.files.to_torch({"w": np.ones(3)}, NAMES),
        TypeError,
        "masks must be bool arrays",
        "'w' is float64",
    ),
    (
        "one name",
        lambda _: sf.files.to_torch(WHOLE, "fc"),
        TypeError,
        "names must be {path: name} or path -> name",
        "got str",
    ),
    (
        "a name of no leaf",
        lambda _: sf.files.to_torch(WHOLE, {"v": "fc"}),
        ValueError,
        "names has ['v']",
        "the leaves are ['w']",
    ),
    (
        "one name for two",
        lambda _: sf.files.to_torch(WHOLE | {"v": MASK}, lambda path: "fc"),
        ValueError,
        "names must give each leaf a name of its own",
        "['fc'] are given twice",
    ),
    (
        "to PyTorch under jit",
        lambda _: jax.jit(lambda m: sf.files.to_torch(m, NAMES))(SOME),
        TypeError,
        "masks is traced",
        "outside of jit",
    ),
    ("no array", from_torch({}), ValueError, "arrays must hold", "['fc']"),
    (
        "an array in JAX's order",
        from_torch({"fc": ONES.T}),
        ValueError,
        "arrays: 'fc' must be (2, 3)",
        "got (3, 2)",
    ),
    (
        "an array of halves",
        from_torch({"fc": ONES * 0.5}),
        ValueError,
        "arrays: 'fc' must hold 0 and 1 alone",
    ),
]


EIGHT = sf.plan.blocks(8)
MATRIX = draw(32, 48)


def to_blocks(mask=MATRIX, pattern=EIGHT):
    return lambda _: sf.files.to_blocks([np.ones((32, 48), np.float32)], [mask], pattern)


SPARSE = [
    (
        "masks of another tree, as BCOO",
        lambda _: sf.files.to_bcoo(WHOLE, WHOLE | {"v": MASK}),
        ValueError,
        "masks must have the tree structure of params",
    ),
    (
        "half precision, as CSR",
        lambda _: sf.files.to_csr(HALF, SOME),
        TypeError,
        "SciPy has no float16",
        "cast 'w' to float32",
    ),
    (
        "BCOO under jit",
        lambda _: jax.jit(sf.files.to_bcoo)(HALF, SOME),
        TypeError,
        "traced",
        "outside of jit",
    ),
    (
        "a product that does not fit",
        lambda folder: jnp.ones((3, 48)) @ to_blocks()(folder)[0],
        ValueError,
        "x must be (…, 32)",
        "got shape (3, 48)",
    ),
    (
        "a number for blocks",
        to_blocks(pattern=8),
        TypeError,
        "pattern must be a function",
        "got 8",
    ),
    (
        "blocks without brackets",
        to_blocks(pattern=sf.plan.blocks),
        TypeError,
        "pattern must be blocks(…), with brackets",
    ),
    (
        "blocks higher than the matrix",
        to_blocks(pattern=lambda path, shape: (64, 8)),
        ValueError,
        "must return the shape of a unit",
        "got (64, 8)",
    ),
    (
        "blocks under jit",
        lambda folder: jax.jit(lambda mask: to_blocks(mask)(folder))(MATRIX),
        TypeError,
        "traced",
        "outside of jit",
    ),
    (
        "a mask that is turned",
        to_blocks(draw(48, 32)),
        ValueError,
        "masks must have the shapes of params",
        "(32, 48) in params and (48, 32) in masks",
    ),
]


@each([*LOADED, *SAVED, *ARRAYS, *TORCH, *SPARSE])
def test_it_is_refused(call, error, named, folder):
    check_refused(call, error, named, folder)
    assert not [*folder.glob("arrays*")]


def test_without_safetensors_it_says_what_to_do(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    for call in (lambda p: sf.files.save_arrays(p, {}), sf.files.load_arrays):
        check_refused(
            lambda call=call: call(folder / "arrays.safetensors"),
            ImportError,
            ["pip install safetensors", "or take a path that ends in .npz"],
        )
    assert not [*folder.glob("arrays*")]
