"""Folders of experiments import downward only, in the order that experiments/__init__.py has."""

import ast
from pathlib import Path

import pytest

import experiments

ROOT = Path(__file__).parents[2] / "experiments"
ORDER = "commands > draw > cells > training > data, models > records"
LEVELS = [set(level.split(", ")) for level in reversed(ORDER.split(" > "))]
RANK = {folder: rank for rank, folders in enumerate(LEVELS) for folder in folders}
FILES = sorted(ROOT.rglob("*.py"))


def name_of(path):
    return str(path.relative_to(ROOT))


def folder_of(path):
    parts = path.relative_to(ROOT).parts
    return parts[0] if len(parts) > 1 else "commands"


def imports(path):
    """Yield every import as a dotted name, also those inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_go_down(path):
    here = folder_of(path)
    for name in imports(path):
        top, *inside = name.split(".")
        if top == "experiments":
            there = inside[0] if inside[0] in RANK else "commands"
            own = there == here != "commands"  # a command imports no other command
            assert own or RANK[there] < RANK[here], f"{name_of(path)} imports {name}"
        elif top == "synflow_jax":
            assert here != "records", f"{name_of(path)} imports {name}"
            private = [part for part in inside if part[0] == "_" and part != "__version__"]
            assert not private, f"{name_of(path)} imports {name}"
        assert top not in {"benchmarks", "tests"}, f"{name_of(path)} imports {name}"


def test_the_order_is_written_down_and_has_every_folder():
    assert f"\n    {ORDER}\n" in experiments.__doc__
    assert {folder_of(path) for path in FILES} == set(RANK)
    for folder in RANK.keys() - {"commands"}:
        assert ast.get_docstring(ast.parse((ROOT / folder / "__init__.py").read_text("utf-8")))
