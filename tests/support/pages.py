"""Where the pages and the committed rows are, and how the Python of a page is run."""

import json
import pathlib
import re
import warnings

import jax

ROOT = pathlib.Path(__file__).parents[2]
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
        # The networks of the pages are tiny, and lose outputs sooner than others.
        warnings.filterwarnings("ignore", message="check of the network")
        for block in blocks:
            exec(compile(block, str(page), "exec"), scope)  # our own pages
    return scope


def words_of(page):
    """The text of a page without its line breaks, to look for sentences in."""
    return " ".join(page.read_text().split())


def result_rows(name):
    """Rows of a committed benchmark."""
    found = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
    return found["rows"] if isinstance(found, dict) else found
