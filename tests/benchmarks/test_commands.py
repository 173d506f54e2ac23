"""Every command that a page or a docstring names can be run; none is run here."""

import ast
import importlib.util
import pathlib
import re

import pytest

from benchmarks import FOLDERS
from benchmarks.__main__ import GUARD, commands

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *(ROOT / "docs").rglob("*.md"),
    ROOT / "experiments" / "README.md",
    ROOT / "notebooks" / "README.md",
]
COMMAND = re.compile(r"python -m ((?:benchmarks|experiments)(?:\.[a-z_0-9]+)+)")


def texts():
    """The pages, and the docstrings of all modules of benchmarks and experiments."""
    yield from (page.read_text() for page in PAGES)
    for package in ("benchmarks", "experiments"):
        for path in (ROOT / package).rglob("*.py"):
            yield ast.get_docstring(ast.parse(path.read_text())) or ""


NAMED = sorted({name for text in texts() for name in COMMAND.findall(text)})


def source_of(name):
    """The file that `python -m name` runs, found as Python finds it."""
    spec = importlib.util.find_spec(name)
    assert spec is not None, f"no module {name}"
    if spec.submodule_search_locations is not None:
        spec = importlib.util.find_spec(f"{name}.__main__")
        assert spec is not None, f"{name} is a package without a __main__.py"
    return pathlib.Path(spec.origin)


@pytest.mark.parametrize("name", NAMED)
def test_a_command_that_is_named_can_be_run(name):
    assert GUARD in source_of(name).read_text()


def test_many_commands_are_named():
    """The pattern finds them: a test of no commands would pass."""
    found = {name.partition(".")[0] for name in NAMED}
    assert found == {"benchmarks", "experiments"}
    assert {"benchmarks.run", "benchmarks.deep", "experiments.compare"} <= set(NAMED)


def test_the_list_of_commands_is_that_of_the_modules_that_can_be_run():
    listed = dict(commands())
    assert {name for name in NAMED if name.startswith("benchmarks.")} <= set(listed)
    assert all(GUARD in source_of(name).read_text() for name in listed)


def test_no_two_folders_of_benchmarks_have_a_module_of_the_same_name():
    """A command without its folder names one module."""
    paths = [path for folder in FOLDERS for path in (ROOT / "benchmarks" / folder).glob("*.py")]
    names = [path.stem for path in paths if path.stem not in ("__init__", "__main__")]
    folders = [path.name for path in (ROOT / "benchmarks").iterdir() if path.is_dir()]
    assert sorted({*names, *folders}) == sorted([*names, *folders])
