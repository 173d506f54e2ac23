"""Masks in PyTorch's layout and names, and sparse matrices that multiply as the dense ones do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.sparse import BCOO
from scipy.sparse import csr_array

import synflow_jax as sf
from tests.support.meshes import differ
from tests.support.nets import mlp, mlp_params
from tests.support.refusals import check_refused

RNG = np.random.default_rng(0)
SHAPES = {
    "Conv_0": {"kernel": (3, 2, 4, 5), "bias": (5,)},
    "Conv_1": {"kernel": (3, 4, 5)},
    "Conv_2": {"kernel": (1, 2, 3, 4, 5)},
    "Dense_0": {"kernel": (6, 4), "bias": (4,)},
    "Embed_0": {"embedding": (7, 3)},
    "linear": {"w": (2, 3)},
    "step": (),
}
MASKS = jax.tree.map(lambda s: RNG.random(s) < 0.5, SHAPES, is_leaf=lambda s: isinstance(s, tuple))


def name_of(path):
    """Name leaves as a module of PyTorch would; the step has none."""
    if path == "step":
        return None
    layer, last = path.split("/")
    return f"{layer.lower()}.{'bias' if last == 'bias' else 'weight'}"


def test_every_entry_stands_where_pytorch_has_it():
    found = sf.files.to_torch(MASKS, name_of)
    assert list(found) == [
        *("conv_0.bias", "conv_0.weight", "conv_1.weight", "conv_2.weight"),
        *("dense_0.bias", "dense_0.weight", "embed_0.weight", "linear.weight"),
    ]
    expected = {
        "conv_0.weight": np.einsum("hwio->oihw", MASKS["Conv_0"]["kernel"]),
        "conv_0.bias": MASKS["Conv_0"]["bias"],
        "conv_1.weight": np.einsum("wio->oiw", MASKS["Conv_1"]["kernel"]),
        "conv_2.weight": np.einsum("dhwio->oidhw", MASKS["Conv_2"]["kernel"]),
        "dense_0.weight": MASKS["Dense_0"]["kernel"].T,
        "dense_0.bias": MASKS["Dense_0"]["bias"],
        "embed_0.weight": MASKS["Embed_0"]["embedding"],
        "linear.weight": MASKS["linear"]["w"].T,
    }
    for name, mask in expected.items():
        np.testing.assert_array_equal(found[name], mask, strict=True)
        assert found[name].flags.c_contiguous


@pytest.mark.parametrize("dtype", [bool, np.float32, np.uint8])
def test_there_and_back(dtype):
    arrays = {name: mask.astype(dtype) for name, mask in sf.files.to_torch(MASKS, name_of).items()}
    arrays["running_mean"] = np.full(3, 0.5)  # a state dict holds more
    found = sf.files.from_torch(arrays, MASKS, name_of)
    assert differ(found, MASKS | {"step": np.array(True)}) == 0
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(bool)}


def test_axes_of_ones_own():
    """A kernel of attention that another library has as (heads, width, in)."""
    masks = {"query": {"kernel": RNG.random((8, 2, 4)) < 0.5}}
    order = lambda path, ndim: (1, 2, 0)
    found = sf.files.to_torch(masks, {"query/kernel": "q"}, axes=order)
    np.testing.assert_array_equal(found["q"], np.einsum("ihw->hwi", masks["query"]["kernel"]))
    like = jax.tree.map(lambda m: jax.ShapeDtypeStruct(m.shape, jnp.float32), masks)
    assert differ(sf.files.from_torch(found, like, {"query/kernel": "q"}, axes=order), masks) == 0


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_files_hold_the_arrays(suffix, tmp_path):
    arrays = sf.files.to_torch(MASKS, name_of)
    arrays["turned"] = np.arange(6, dtype=np.float32).reshape(2, 3).T
    sf.files.save_arrays(tmp_path / f"masks.{suffix}", arrays)
    found = sf.files.load_arrays(str(tmp_path / f"masks.{suffix}"))
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, strict=True)
    assert [path.name for path in tmp_path.iterdir()] == [f"masks.{suffix}"]


PARAMS = jax.tree.map(
    lambda mask: np.where(RNG.random(mask.shape) < 0.1, 0, RNG.standard_normal(mask.shape)), MASKS
)
PARAMS = jax.tree.map(np.float32, PARAMS) | {"step": np.int32(3)}
KEPT = MASKS | {"step": np.array(True), "Conv_1": {"kernel": np.ones((3, 4, 5), bool)}}
DENSE = jax.tree.map(lambda p, m: np.where(m, p, np.zeros_like(p)), PARAMS, KEPT)


def is_sparse(leaf):
    return isinstance(leaf, BCOO | csr_array)


def test_bcoo_is_the_masked_leaf_and_multiplies_as_it_does():
    sparse = sf.files.to_bcoo(PARAMS, KEPT)
    assert jax.tree.structure(sparse, is_leaf=is_sparse) == jax.tree.structure(PARAMS)
    conv, dense = sparse["Conv_0"]["kernel"], sparse["Dense_0"]["kernel"]
    assert conv.shape == (3, 2, 4, 5)
    assert (conv.nse, dense.nse) == (
        KEPT["Conv_0"]["kernel"].sum(),
        KEPT["Dense_0"]["kernel"].sum(),
    )
    np.testing.assert_array_equal(conv.todense(), DENSE["Conv_0"]["kernel"])
    for one in (sparse["Conv_1"]["kernel"], sparse["Dense_0"]["bias"]):
        assert isinstance(one, jax.Array)
    np.testing.assert_array_equal(sparse["Dense_0"]["bias"], DENSE["Dense_0"]["bias"])
    assert sparse["step"] == 3
    x = RNG.standard_normal((9, 6), np.float32)
    # Sums of six float32 products in another order.
    np.testing.assert_allclose(
        jnp.asarray(x) @ dense, x @ DENSE["Dense_0"]["kernel"], rtol=1e-5, atol=1e-6
    )


def test_a_whole_network_runs_on_bcoo(flax_promotes):
    params = mlp_params(0)
    masks = jax.tree.map(lambda p: np.random.default_rng(1).random(p.shape) < 0.3, params)
    x = jnp.asarray(RNG.standard_normal((4, params["layer0"]["kernel"].shape[0])), jnp.float32)
    found = jax.jit(mlp)(sf.files.to_bcoo(params, masks), x)
    # Three layers of float32 sums in another order.
    np.testing.assert_allclose(found, mlp(sf.apply_masks(params, masks), x), rtol=1e-4, atol=1e-5)


def test_csr_is_the_masked_leaf_and_multiplies_as_it_does():
    sparse = sf.files.to_csr(PARAMS, KEPT)
    conv, dense = sparse["Conv_0"]["kernel"], sparse["Dense_0"]["kernel"]
    assert conv.shape == (3 * 2 * 4, 5)
    assert conv.nnz == KEPT["Conv_0"]["kernel"].sum() > np.count_nonzero(DENSE["Conv_0"]["kernel"])
    np.testing.assert_array_equal(conv.toarray(), DENSE["Conv_0"]["kernel"].reshape(-1, 5))
    assert conv.has_sorted_indices
    assert dense.dtype == np.float32
    for one in (sparse["Conv_1"]["kernel"], sparse["Dense_0"]["bias"]):
        assert type(one) is np.ndarray
    patch = RNG.standard_normal(24).astype(np.float32)
    # Sums of 24 float32 products in another order.
    np.testing.assert_allclose(
        conv.T @ patch,
        np.einsum("hwi,hwio->o", patch.reshape(3, 2, 4), DENSE["Conv_0"]["kernel"]),
        rtol=1e-5,
        atol=1e-6,
    )
    wide = jax.tree.map(np.float64, PARAMS) | {"step": np.int32(3)}
    assert sf.files.to_csr(wide, KEPT)["linear"]["w"].dtype == np.float64


def test_complex_leaves_are_sparse_as_real_ones_are(tmp_path):
    leaf = (RNG.standard_normal((6, 4)) + 1j * RNG.standard_normal((6, 4))).astype(np.complex64)
    mask = np.kron(RNG.random((3, 2)) < 0.5, np.ones((2, 2), bool))
    params, masks = {"w": leaf, "n": np.int32(3)}, {"w": mask, "n": np.array(True)}
    want = np.where(mask, leaf, 0)
    x = np.ones(6, np.complex64)
    np.testing.assert_array_equal(sf.files.to_bcoo(params, masks)["w"].todense(), want)
    np.testing.assert_array_equal(sf.files.to_csr(params, masks)["w"].toarray(), want)
    blocks = sf.files.to_blocks(params, masks, sf.plan.blocks(2))["w"]
    np.testing.assert_allclose(x @ blocks, x @ want, rtol=1e-5)
    sf.save_masks(tmp_path / "masks", masks)
    np.testing.assert_array_equal(sf.load_masks(tmp_path / "masks", params)["w"], mask)
    sf.files.save_sparse(tmp_path / "sparse", params, masks)
    loaded, found = sf.files.load_sparse(tmp_path / "sparse", params)
    np.testing.assert_array_equal(loaded["w"], want)
    np.testing.assert_array_equal(found["w"], mask)


def test_a_leaf_without_kept_weights():
    params, masks = {"w": np.ones((3, 2), np.float32)}, {"w": np.zeros((3, 2), bool)}
    for convert, xp in ((sf.files.to_bcoo, jnp), (sf.files.to_csr, np)):
        found = xp.ones(3, np.float32) @ convert(params, masks)["w"]
        np.testing.assert_array_equal(found, [0, 0])


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_any_name_and_any_number_of_axes(suffix, tmp_path):
    masks = {"file": np.array(False), "allow_pickle": np.array([[True, False]]).T}
    path = tmp_path / f"masks.{suffix}"
    sf.files.save_arrays(path, sf.files.to_torch(masks, str))
    found = sf.files.load_arrays(path)
    assert {name: array.shape for name, array in found.items()} == {
        "file": (),
        "allow_pickle": (2, 1),
    }
    back = sf.files.from_torch(found, masks, str)
    assert jax.tree.map(np.array_equal, back, masks) == {"file": True, "allow_pickle": True}


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_a_damaged_file_is_refused_by_name(suffix, tmp_path):
    path = tmp_path / f"masks.{suffix}"
    sf.files.save_arrays(path, {"fc": np.arange(999)})
    whole = path.read_bytes()
    with path.with_suffix(".npy").open("wb") as file:
        np.save(file, np.ones(2))
    other = path.with_suffix(".npy").read_bytes()
    flipped = whole[:60] + bytes(255 - b for b in whole[60:90]) + whole[90:]
    for content in (b"", whole[:-9], other, flipped if suffix == "npz" else whole[9:]):
        path.write_bytes(content)
        check_refused(
            lambda: sf.files.load_arrays(path), ValueError, [f"masks.{suffix}' cannot be loaded: "]
        )
