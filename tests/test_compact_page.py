"""The page on compact networks runs, and what it says of them holds."""

import pathlib

from test_readme import run_blocks

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "howto" / "compact.md"


def test_the_blocks_run_and_hold():
    scope = run_blocks(PAGE, 2)
    assert float(scope["gap"]) < 1e-6  # float32, sums of a few dozen products
    assert scope["shrunk"] < 84_490 / 5  # entries of the whole params
    assert scope["values"][-1] < scope["values"][0]
    before, after = scope["small"].multiply_adds
    assert before == 64 * 256 + 256 * 256 + 256 * 10 and after < before / 5
    assert scope["whole"]["mid"]["kernel"].shape == (256, 256)
