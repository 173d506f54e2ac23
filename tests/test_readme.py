"""The Python of the README and of the documents runs, block after block, as one session each."""

import pathlib
import re
import warnings

import jax
import pytest

ROOT = pathlib.Path(__file__).parent.parent
README = ROOT / "README.md"


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
    for page in (README, *(ROOT / "docs").glob("*.md")):
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name} names {link}"
        for name in re.findall(r"`(benchmarks/[\w./]+|test_\w+\.py)`", page.read_text()):
            assert (ROOT / name).exists() or (ROOT / "tests" / name).exists(), name


@pytest.mark.parametrize(
    "command",
    [
        "pip install -e '.[experiments]' && python -m experiments.compare",
        "pip install -e '.[test]' && pytest",
    ],
)
def test_the_two_commands_stand_on_lines_of_their_own(command):
    assert command in README.read_text().splitlines()
