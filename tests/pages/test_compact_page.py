"""The page on compact networks runs, and what it says of them holds."""

import io
import json
import pathlib

from rich.console import Console

from benchmarks.compaction import compact_table
from tests.pages.test_readme import ROOT, run_blocks

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "howto" / "compact.md"


def test_the_blocks_run_and_hold():
    scope = run_blocks(PAGE, 2)
    assert float(scope["gap"]) < 1e-6  # float32, sums of a few dozen products
    assert scope["shrunk"] < 84_490 / 5  # entries of the whole params
    assert scope["values"][-1] < scope["values"][0]
    before, after = scope["small"].multiply_adds
    assert before == 64 * 256 + 256 * 256 + 256 * 10 and after < before / 5
    assert scope["whole"]["mid"]["kernel"].shape == (256, 256)


def test_the_table_of_the_benchmark_fits_a_hundred_columns():
    rows = json.loads((ROOT / "benchmarks/results/compact.json").read_text())["rows"]
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(compact_table.table(compact_table.ratios(rows)))
    text = console.export_text()
    assert text.count("ResNet-18") == sum(row["network"] == "resnet18" for row in rows) > 0
    assert "…" not in text
