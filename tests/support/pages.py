"""Where the pages are, how their Python is run, and the benchmarks that they show."""

import json
import pathlib
import re
import warnings

import jax

ROOT = pathlib.Path(__file__).parents[2]
README = ROOT / "README.md"
WORDS = " ".join(README.read_text().split())  # without line breaks, for sentences
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    ROOT / "experiments" / "README.md",
    *(page for page in sorted((ROOT / "docs").rglob("*.md")) if "notebooks" not in page.parts),
]


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


def result_rows(name):
    """Rows of a committed benchmark."""
    found = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
    return found["rows"] if isinstance(found, dict) else found
