"""The benchmark of other packages' networks, on those of packages that the tests have."""

import json
from math import ceil

import jax
import numpy as np
import pytest
from rich.console import Console

import synflow_jax as sf
from benchmarks.zoo import cases, zoo_equinox, zoo_haiku, zoo_linen, zoo_rows
from benchmarks.zoo.zoo_measure import measure
from synflow_jax.trees import named_leaves
from tests.support.pages import ROOT

# Tiny networks at these ratios lose layers or outputs, which the check says.
pytestmark = pytest.mark.filterwarnings("ignore:check of the network")

LISTED = cases.listed()
NAMES = ("kernel", "w", "weight")
RHO = 7
# Sizes of the kernels, by hand from the layers.
SIZES = {
    # Into the width of 32; four products in each of two attentions, two layers after each; a head.
    "linen attention": 12 * 32 + 2 * (4 * 32 * 32 + 2 * 32 * 64) + 32 * 10,
    # Input and recurrent kernels of three gates, in two layers, and a head.
    "linen GRU": 3 * (12 * 32 + 32 * 32) + 3 * (32 * 32 + 32 * 32) + 32 * 10,
    # Four products of the attention, and a head; the table of tokens is no kernel.
    "haiku MultiHeadAttention": 4 * 32 * 32 + 32 * 48,
    "equinox MLP": 12 * 32 + 32 * 32 + 32 * 10,
}


def is_kernel(path, leaf):
    return path.split("/")[-1] in NAMES


@pytest.fixture(scope="module", params=SIZES)
def pruned(request):
    case = LISTED[request.param].build()
    network = sf.flow_mode(case.apply_fn)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        masks = sf.synflow(case.params, network, case.shape, RHO, rounds=20, prunable=is_kernel)
        trained = case.train(masks)
    return request.param, case.params, masks, trained


def sizes(tree):
    """Add up the True entries of all leaves: of kernels, of others."""
    pairs = [(path.split("/")[-1] in NAMES, leaf) for path, leaf in named_leaves(tree)]
    return [
        sum(int(leaf.sum()) for hit, leaf in pairs if hit == wanted) for wanted in (True, False)
    ]


def test_the_number_of_kept_weights_is_exact(pruned):
    name, params, masks, _ = pruned
    weights, others = sizes(jax.tree.map(lambda leaf: np.ones(leaf.shape, bool), params))
    assert weights == SIZES[name]
    assert sizes(masks) == [ceil(SIZES[name] / RHO), others]


def test_pruned_weights_are_zero_after_training_and_others_moved(pruned):
    _, params, masks, after = pruned
    moved = 0
    for old, new, mask in zip(*map(jax.tree.leaves, (params, after, masks)), strict=True):
        assert not np.asarray(new)[~np.asarray(mask)].any()
        assert np.isfinite(new).all()
        moved += np.abs(np.where(mask, new - old, 0)).max() > 1e-4  # AdamW: about 1e-3 a step
    # Leaves of emptied layers, and of biases that softmax ignores, have no gradient.
    assert moved >= 0.5 * len(jax.tree.leaves(params))


def test_a_row_says_what_failed_and_what_was_warned_of():
    def build():
        return cases.Case(
            {"w": np.ones((2, 2))}, lambda params, x: 0 * (x @ params["w"]), (2,), None
        )

    row = measure(cases.Network("zero", "jax", build))
    assert "the flow must be above 0" in row["plain"]["failed"]
    said = zoo_rows.failures(row)
    assert any(line.startswith("plain: ValueError") for line in said)
    console = Console(record=True, width=200)
    console.print(zoo_rows.table([{"network": "zero", "package": "jax", **row}]))
    assert "zero" in console.export_text()


def test_lines_of_glue_are_counted_without_docstrings_and_comments():
    assert [cases.code_lines(zoo.glue) for zoo in (zoo_linen, zoo_haiku, zoo_equinox)] == [1, 3, 4]


def test_every_committed_row_is_of_a_network_that_is_listed():
    path = ROOT / "benchmarks" / "results" / "zoo.json"
    rows = json.loads(path.read_text())["rows"]
    assert rows
    assert {row["network"] for row in rows} <= set(LISTED)
    for row in rows:
        ways = [row[way] for way in ("plain", "flow") if "kept" in row.get(way, {})]
        assert all(way["kept"] == way["asked"] for way in ways)
        assert row.get("pruned weights that are not 0", 0) == 0
