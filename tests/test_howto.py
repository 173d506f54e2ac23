"""The pages that show how: their blocks run, as a user's session would."""

import pathlib

import pytest
from test_readme import run_blocks

PAGES = pathlib.Path(__file__).parent.parent / "docs" / "howto"


@pytest.mark.parametrize(
    ("page", "least"), [("choosing.md", 6), ("watching.md", 2), ("patterns.md", 3), ("slim.md", 2)]
)
def test_the_blocks_of_a_page_run(page, least):
    run_blocks(PAGES / page, least)
