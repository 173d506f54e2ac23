"""The page on keeping masks: its blocks run, and its files have the sizes that it states."""

import jax
import numpy as np
import pytest

import synflow_jax as sf
from tests.support.meshes import differ, same_layout
from tests.support.pages import ROOT, run_blocks


@pytest.fixture(scope="module")
def page():
    """The variables of the page on keeping masks, after its blocks."""
    return run_blocks(ROOT / "docs" / "howto" / "keeping.md", 8)


def test_the_page_keeps_what_it_says(page):
    masks, pruned = page["masks"], sf.apply_masks(page["params"], page["masks"])
    for name in ("loaded", "on_mesh", "kept", "back"):
        assert differ(page[name], masks) == 0, name
    assert same_layout(page["like"], page["on_mesh"])
    assert differ(page["pruned"], pruned) == 0
    assert differ(page["restored"], page["tree"]) == 0
    assert list(page["counts"].values()) == [int(mask.sum()) for mask in jax.tree.leaves(masks)]
    dense = page["in_jax"]["hidden"]["kernel"].todense()
    np.testing.assert_array_equal(dense, pruned["hidden"]["kernel"])
    np.testing.assert_array_equal(page["in_scipy"]["hidden"]["kernel"].toarray(), dense)
    # Sums of 784 float32 products in another order.
    np.testing.assert_allclose(page["out"], page["same"], rtol=1e-4, atol=1e-5)


def test_the_page_states_the_sizes_that_files_have(tmp_path):
    lines = (ROOT / "docs" / "howto" / "keeping.md").read_text().splitlines()
    rows = [line.split("|")[1:-1] for line in lines if line.startswith(("| 1", "| 2"))]
    assert len(rows) == 4
    weights = {"w": np.ones(10**6, np.float32)}
    for rho, flags, bits, dense, sparse in (map(float, row) for row in rows):
        masks = {"w": np.random.default_rng(0).permutation(10**6) < 10**6 / rho}
        sf.save_masks(tmp_path / "masks", masks)
        sf.files.save_sparse(tmp_path / "net", weights, masks)
        assert (flags, dense) == (1, 4)
        for name, said in (("masks", bits), ("net", sparse)):
            # A header of some ninety bytes, one draw of the gaps, and three digits.
            assert (tmp_path / name).stat().st_size / 1e6 == pytest.approx(said, rel=0.02)
