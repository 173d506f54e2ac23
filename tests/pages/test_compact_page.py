"""The page on compact networks runs, and what it says of them holds."""

import io
import pathlib

import pytest
from rich.console import Console

from benchmarks.compaction import compact_table
from benchmarks.shared.labels import TITLES
from benchmarks.speed.run_table import best
from tests.support.pages import README, result_rows, run_blocks, words_of

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
    rows = result_rows("compact")
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(compact_table.table(compact_table.ratios(rows)))
    text = console.export_text()
    assert text.count("ResNet-18") == sum(row["network"] == "resnet18" for row in rows) > 0
    assert "…" not in text


def measured(name, rho):
    """Cells of a row of the table: dense over compact."""
    found = {
        (r["network"], r["convolution"], r["form"], r["rho"]): r for r in result_rows("compact")
    }
    dense = [found[name, kind, "dense", 1.0] for kind in ("xla", "product")]
    xla, product = (found[name, kind, "compact", rho] for kind in ("xla", "product"))
    faster = [
        min(best(row, way) for row in dense) / min(best(xla, way), best(product, way))
        for way in ("train", "infer")
    ]
    ways = product["ratios"]
    return [ways["entries"], ways["multiply_adds"], xla["ratios"]["train"], ways["train"], *faster]


@pytest.mark.parametrize("name", ["vgg16", "resnet18"])
@pytest.mark.parametrize("rho", [10.0, 100.0, 1000.0])
def test_the_table_of_compact_networks_is_what_was_measured(name, rho):
    """Its cells are those of the committed rows, to three digits."""
    lines = [line for line in PAGE.read_text().splitlines() if line.count("|") == 9]
    line = next(line for line in lines if line.startswith(f"| {TITLES[name]} | {rho:g} |"))
    cells = [float(cell) for cell in line.split("|")[3:-1]]
    assert cells == pytest.approx(measured(name, rho), rel=5e-3)


def test_what_the_readme_says_of_compact_networks_was_measured():
    entries, *_, train, _ = measured("vgg16", 100.0)
    said = (
        f"has {entries:.3g} times fewer weights, and a training step is {train:.3g} times as fast"
    )
    assert f"VGG-16 at ρ = 100 then {said}" in words_of(README)
