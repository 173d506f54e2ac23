"""The Python of the README and of the documents runs, block after block, as one session each."""

import json
import pathlib
import re
import warnings

import jax
import pytest

from benchmarks.shared.labels import TITLES
from benchmarks.speed.run_table import best

ROOT = pathlib.Path(__file__).parents[2]
README = ROOT / "README.md"
FIGURES = ROOT / "experiments" / "README.md"


def run_blocks(page, least):
    """Run a page's blocks as a user's session would, with warnings as errors."""
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    scope = {}
    assert len(blocks) >= least
    with (
        warnings.catch_warnings(),
        jax.numpy_rank_promotion("allow"),  # as a user's session has it
        jax.numpy_dtype_promotion("standard"),
    ):
        warnings.simplefilter("error")
        for block in blocks:
            exec(compile(block, str(page), "exec"), scope)  # our own pages
    return scope


def test_the_readme_runs():
    assert 0 < float(run_blocks(README, 3)["density"]) < 0.02


def test_the_page_on_flow_runs():
    scope = run_blocks(ROOT / "docs" / "flow.md", 1)
    assert float(scope["gap"]) > 0.5  # tanh
    assert sum(int(mask.sum()) for name, mask in scope["masks"].items() if name != "bias") == 150


def test_the_pages_name_files_that_exist():
    for page in (README, FIGURES, *(ROOT / "docs").glob("*.md")):
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name} names {link}"
        for name in re.findall(r"`(benchmarks/[\w./]+|test_\w+\.py)`", page.read_text()):
            assert (ROOT / name).exists() or (ROOT / "tests" / name).exists(), name


def test_the_page_of_figures_is_whole():
    lines = FIGURES.read_text().splitlines()
    assert not [line for line in lines if line.startswith("@") or "FILL IN" in line]
    rows = [line for line in lines if line.startswith("| [")]
    names = [re.match(r"\| \[(\w+)\]", line)[1] for line in rows]
    assert names == ["1", "2", "3", "4", "5a", "5b", "6", "7", "critical"]
    assert {line.count("|") for line in rows} == {8}


@pytest.mark.parametrize(
    "command",
    [
        "pip install -e '.[experiments]' && python -m experiments.compare",
        "pip install -e '.[test]' && pytest",
    ],
)
def test_the_two_commands_stand_on_lines_of_their_own(command):
    assert command in README.read_text().splitlines()


def test_the_table_of_speed_is_what_was_measured():
    """Its cells are those of the committed rows, to three digits."""
    rows = json.loads((ROOT / "benchmarks/results/run_cpu.json").read_text())["rows"]
    found = {(row["network"], row["contender"]): row for row in rows}
    for name, title in TITLES.items():
        if (name, "ours") in found:
            ours, torch, naive, floor = (
                found[name, one] for one in ("ours", "PyTorch", "naive JAX", "floor")
            )
            rounds = [1e3 * best(row, "steady") for row in (ours, torch, naive, floor)]
            jobs = [best(ours, "first"), best(ours, "whole"), best(torch, "whole")]
            lines = README.read_text().split("## How fast")[1].splitlines()
            line = next(x for x in lines if x.startswith(f"| {title} |"))
            cells = [float(cell) for cell in line.split("|")[2:-1]]
            assert cells == pytest.approx([*rounds, *jobs], rel=5e-3)  # three digits
    growth = json.loads((ROOT / "benchmarks/results/growth.json").read_text())["rows"]
    largest = max(growth, key=lambda row: row["weights"])
    said = f"ten rounds in {largest['again']:.0f} s, with a peak of {largest['peak'] / 1e9:.1f} GB"
    assert said in README.read_text()


def test_the_table_of_compact_networks_is_what_was_measured():
    """Its cells are those of the committed rows, to three digits."""
    rows = json.loads((ROOT / "benchmarks/results/compact.json").read_text())["rows"]
    found = {(r["network"], r["convolution"], r["form"], r["rho"]): r for r in rows}
    lines = [line for line in README.read_text().splitlines() if line.count("|") == 9]
    for name in ("vgg16", "resnet18"):
        dense = [found[name, kind, "dense", 1.0] for kind in ("xla", "product")]
        for rho in (10.0, 100.0, 1000.0):
            xla, product = (found[name, kind, "compact", rho] for kind in ("xla", "product"))
            faster = [
                min(best(row, way) for row in dense) / min(best(xla, way), best(product, way))
                for way in ("train", "infer")
            ]
            ways = product["ratios"]
            wanted = [rho, ways["entries"], ways["multiply_adds"], xla["ratios"]["train"]]
            wanted += [ways["train"], *faster]
            starts = f"| {TITLES[name]} | {rho:g} |"
            line = next(line for line in lines if line.startswith(starts))
            cells = [float(cell) for cell in line.split("|")[2:-1]]
            assert cells == pytest.approx(wanted, rel=5e-3)
