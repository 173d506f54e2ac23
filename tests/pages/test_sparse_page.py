"""The benchmark of sparse products leaves rows that hold, and its page says what they say."""

import json
import re

import numpy as np
import pytest
from rich.console import Console

from benchmarks.sparse import products, products_table
from tests.support.pages import ROOT, run_blocks

PAGE = ROOT / "docs" / "howto" / "sparse.md"
ROWS = json.loads((ROOT / "benchmarks" / "results" / "sparse_cpu.json").read_text())["rows"]


def cells(title, after):
    """Cells of the row that begins so, in the first table after a line."""
    rest = PAGE.read_text().split(after, 1)[1]
    line = next(line for line in rest.splitlines() if line.startswith(f"| {title} |"))
    return [cell.strip() for cell in line.split("|")[2:-1]]


@pytest.mark.parametrize("name", products_table.names(ROWS))
def test_the_tables_are_what_was_measured(name):
    assert cells(name, "From which density on") == products_table.worth_cells(ROWS, name)
    assert cells(name, "At density 0.1") == products_table.ratio_cells(ROWS, name, 0.1)
    assert cells(name, "At density 0.01") == products_table.ratio_cells(ROWS, name, 0.01)


def test_the_heads_of_the_tables_are_the_cases_measured():
    heads = [f"{'×'.join(map(str, shape))}, {batch}" for shape, batch in products_table.cases(ROWS)]
    found = re.findall(r"^\| times as fast \|.*$|^\| worth it \|.*$", PAGE.read_text(), re.M)
    assert len(found) == 3
    for line in found:
        assert [cell.strip() for cell in line.split("|")[2:-1]] == heads
    assert len(ROWS) == len(products.SHAPES) * len(products.BATCHES) * len(products.DENSITIES)


def test_what_the_page_says_beside_the_tables_is_so():
    page, found = PAGE.read_text(), {}
    for row in ROWS:
        case = "×".join(map(str, row["shape"])), row["batch"]
        found[case] = min(row["seconds"]["dense"], found.get(case, 1.0))
    one, many = (1e3 * found["2048×2048", batch] for batch in (1, 256))
    assert f"takes {one:.2f} ms at 2048×2048 and batch 1, and {many:.1f} ms at\nbatch 256" in page
    half = [(row["batch"], max(row["ratios"].values())) for row in ROWS if row["density"] == 0.5]
    assert f"up to {max(ratio for batch, ratio in half if batch == 1):.1f} times" in page
    beside = [ratio for batch, ratio in half if batch > 1]
    assert max(beside) < 1.2
    assert sum(ratio >= 1.1 for ratio in beside) == 1  # the one that the first table shows
    assert all(max(row["ratios"].values()) < 1 for row in ROWS if row["density"] == 1)
    few = [row["ratios"].get("blocks 64", 9.0) for row in ROWS if row["density"] <= 0.2]
    assert min(few) > 1.1
    assert all(max(row["busy cores"]) < 0.2 for row in ROWS)
    left_out = [row for row in ROWS if "BCSR" not in row["ratios"]]
    assert {(row["batch"], row["density"]) for row in left_out} == {(256, 1.0), (256, 0.5)}


def test_the_page_runs_and_holds():
    session = run_blocks(PAGE, 1)
    assert float(session["gap"]) < 1e-5  # float32, sums of a few hundred products
    assert session["sparse"]["mid"]["kernel"].values.shape[1:] == (32, 32)


def test_worth_is_where_a_way_wins_and_goes_on_winning():
    worth = products_table.worth
    assert worth([(1.0, 0.5), (0.1, 1.2), (0.01, 3.0)]) == 0.1
    assert worth([(1.0, 2.0), (0.1, 0.9), (0.01, 3.0)]) == 0.01
    assert worth([(1.0, 2.0), (0.1, 3.0), (0.01, 1.05)]) is None
    assert worth([]) is None


def test_all_ways_multiply_alike(flax_promotes):
    ways = products.contenders((256, 64), 3, 0.25, "cpu")
    assert {name: kept for name, (_, kept) in ways.items()} == dict.fromkeys(
        ["dense", "BCOO", "BCSR", "SciPy CSR", "blocks 32", "blocks 64"], 0.25
    )
    x = np.random.default_rng(1).standard_normal((3, 256), np.float32)
    for name, (call, _) in ways.items():
        w, mask = products.pruned((256, 64), int(name[7:]) if name[:6] == "blocks" else 1, 0.25)
        result = np.asarray(call())
        result = result.T if name == "SciPy CSR" else result
        np.testing.assert_allclose(result, x @ (w * mask), rtol=1e-4, atol=1e-4)  # 256 products


def test_what_would_not_fit_and_blocks_too_large_are_left_out(flax_promotes, monkeypatch):
    monkeypatch.setattr(products, "ROOM", 100)
    found = products.contenders((128, 64), 3, 0.1, "cpu")
    assert set(found) == {"dense", "SciPy CSR", "blocks 32"}  # a block of 64 is half of all


def test_a_run_stores_its_rows_and_draws_them(flax_promotes, monkeypatch, tmp_path):
    for name, value in {"SHAPES": ((64, 64),), "BATCHES": (1,), "DENSITIES": (0.5, 0.25)}.items():
        monkeypatch.setattr(products, name, value)
    monkeypatch.setattr(products, "TURN", 1e-5)
    console = Console(width=100, record=True)
    products.run(products.Config(out=tmp_path), console)
    rows = json.loads((tmp_path / "sparse_cpu.json").read_text())["rows"]
    assert [row["density"] for row in rows] == [0.5, 0.25]
    dense = min(row["seconds"]["dense"] for row in rows)
    for row in rows:
        assert set(row["ratios"]) == {"BCOO", "BCSR", "SciPy CSR", "blocks 32"}
        for name, ratio in row["ratios"].items():
            assert ratio == dense / row["seconds"][name]
    assert (tmp_path / "sparse_cpu.png").read_bytes()[:4] == b"\x89PNG"
    assert "64×64" in console.export_text()
