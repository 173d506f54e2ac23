"""The Python of the README and of the documents runs, block after block, as one session each."""

import contextlib
import inspect
import io
import operator
import re

import jax
import numpy as np
import pytest

import synflow_jax as sf
from benchmarks.speed.run_table import best
from tests.support.pages import README, ROOT, result_rows, run_blocks, words_of

WORDS = words_of(README)
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    ROOT / "experiments" / "README.md",
    *(page for page in sorted((ROOT / "docs").rglob("*.md")) if "notebooks" not in page.parts),
]


def test_the_readme_runs_and_prints_what_it_shows():
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        session = run_blocks(README, 3)
    (shown,) = re.findall(r"```text\n(.*?)```", README.read_text(), re.DOTALL)
    lines = [line.rstrip() for line in printed.getvalue().splitlines()]
    assert lines == shown.splitlines()
    kept = sum(int(mask.sum()) for mask in jax.tree.leaves(session["masks"]) if mask.ndim > 1)
    assert kept == -(-(3 * 3 * 3 * 16 + 16 * 10) // 5)
    whole = session["apply_fn"](
        sf.apply_masks(session["params"], session["masks"]), np.ones((4, 8, 8, 3), np.float32)
    )
    np.testing.assert_allclose(session["y"], whole, rtol=1e-5, atol=1e-6)  # sums without zeros


def test_the_readme_has_its_parts_in_order():
    assert re.findall(r"^## (.*)$", README.read_text(), re.M) == [
        "Set up",
        "Example",
        "In a Flax training loop: three lines",
        "Who wins, and who collapses where",
        "What you can ask",
        "Smaller and faster",
        "Large",
        "How fast",
        "What it does not do",
        "Cite",
    ]


def functions_asked_for():
    """What stands in the second column of the table of questions."""
    table = README.read_text().split("| question | function |")[1].split("\n\n")[0]
    cells = [line.split("|")[2] for line in table.splitlines()[2:]]
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


@pytest.mark.parametrize("name", functions_asked_for())
def test_a_function_of_the_table_is_where_it_says(name):
    if name.endswith("="):
        assert name[:-1] in inspect.signature(sf.prune).parameters
        return
    value = operator.attrgetter(name)(sf)
    wing, _, short = name.rpartition(".")
    assert callable(value)
    assert short in (getattr(sf, wing).__all__ if wing else sf.__all__)


def test_the_pages_name_files_that_exist():
    for page in PAGES:
        text = page.read_text()
        for link in re.findall(r"\]\(([^)#:\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.S)):
            assert (page.parent / link).exists(), f"{page.name} names {link}"
        folders = r"benchmarks|docs|experiments|notebooks|synflow_jax|tests"
        for name in re.findall(rf"`((?:{folders})/[\w./]+)`", text):
            assert (ROOT / name).exists(), f"{page.name} names {name}"
        for name in re.findall(r"`(test_\w+\.py)`", text):
            assert list((ROOT / "tests").rglob(name)), f"{page.name} names {name}"


@pytest.mark.parametrize(
    "command",
    [
        "pip install -e '.[experiments]' && python -m experiments.compare",
        "pip install -e '.[test]' && pytest",
    ],
)
def test_the_two_commands_stand_on_lines_of_their_own(command):
    assert command in README.read_text().splitlines()


def test_the_speeds_in_prose_are_those_measured():
    found = {(row["network"], row["contender"]): row for row in result_rows("run_cpu")}
    pairs = [[found[name, who] for who in ("ours", "PyTorch")] for name in ("vgg16", "resnet20")]
    ours, torch = (1e3 * best(row, "steady") for row in pairs[0])
    assert f"a round of VGG-16 takes {ours:.0f} ms, in a plain PyTorch loop {torch:.0f} ms" in WORDS
    ours, torch = (best(row, "whole") for row in pairs[0])
    assert f"a cold start take {ours:.1f} s, in PyTorch {torch:.1f} s" in WORDS
    ours, torch = (best(row, "whole") for row in pairs[1])
    assert f"{ours:.2f} s against {torch:.2f} s on ResNet-20" in WORDS


def test_the_largest_run_in_prose_is_the_one_measured():
    largest = max(result_rows("growth"), key=lambda row: row["weights"])
    assert largest["weights"] == 10**9
    seconds, peak = f"{largest['again']:.0f} s", f"{largest['peak'] / 1e9:.1f} GB"
    assert f"ten rounds of 10⁹ float32 weights take {seconds} on two CPU cores" in WORDS
    assert f"with a peak of {peak}" in WORDS
