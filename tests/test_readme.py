"""The README's Python runs, block after block, as one session."""

import pathlib
import re
import warnings

import jax
import pytest

README = pathlib.Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def test_the_blocks_run_in_order():
    scope = {}
    assert len(BLOCKS) >= 3
    with (
        warnings.catch_warnings(),
        jax.numpy_rank_promotion("allow"),  # as a user's session has it
        jax.numpy_dtype_promotion("standard"),
    ):
        warnings.simplefilter("error")
        for block in BLOCKS:
            exec(compile(block, str(README), "exec"), scope)  # our own README
    assert 0 < float(scope["density"]) < 0.02


@pytest.mark.parametrize(
    "command",
    [
        "pip install -e '.[experiments]' && python -m experiments.compare",
        "pip install -e '.[test]' && pytest",
    ],
)
def test_the_two_commands_stand_on_lines_of_their_own(command):
    assert command in README.read_text().splitlines()
