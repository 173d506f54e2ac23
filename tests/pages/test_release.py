"""What is published: one version, the files that belong there, a page without dead links.

The builds themselves, and the use of the wheel by a stranger, are in `.ci/release`.
"""

import ast
import configparser
import importlib.util
import os
import re
import sys

import jax
import pytest

import synflow_jax as sf
from tests.support.pages import README, ROOT
from tests.support.wings import PUBLIC_WINGS
from tests.test_wings import WHEN_USED

SETUP = configparser.ConfigParser(interpolation=None)
SETUP.read(ROOT / "setup.cfg", encoding="utf-8")
PACKAGE = ROOT / "synflow_jax"


def script(name):
    """Load a script of the checks."""
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_version_stands_in_one_place():
    assert SETUP["metadata"]["version"] == "attr: synflow_jax._version.__version__"
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^version: (.*)$", citation, re.M)[1] == sf.__version__
    top = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)[1]
    assert top == sf.__version__
    said = [
        path.relative_to(ROOT).as_posix()
        for folder in ("synflow_jax", "docs", ".ci")
        for path in (ROOT / folder).rglob("*.py")
        if f'"{sf.__version__}"' in path.read_text()
    ]
    assert said == ["synflow_jax/_version.py"]


def test_the_package_declares_its_types_and_all_of_its_folders():
    assert (PACKAGE / "py.typed").exists()
    assert SETUP["options.package_data"]["synflow_jax"] == "py.typed"
    for path in PACKAGE.rglob("*.py"):
        assert (path.parent / "__init__.py").exists(), path


def test_the_package_imports_what_it_names_as_needed():
    needs = re.findall(r"^\w+", SETUP["options"]["install_requires"].strip(), re.M)
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                found.add(node.module.split(".")[0])
            elif isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
    outside = found - set(sys.stdlib_module_names)
    assert outside == {*needs, "synflow_jax", *WHEN_USED}  # and the last only inside of functions


def test_the_long_description_stands_alone():
    """The package index shows it by itself: no relative links and no pictures of the repository."""
    path = SETUP["metadata"]["long_description"].removeprefix("file: ")
    page = (ROOT / path).read_text()
    assert path in (ROOT / "MANIFEST.in").read_text().split()
    assert all(link.startswith("https://") for link in re.findall(r"\]\(([^)]*)\)", page))
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (first, *_) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert block == first  # said twice, and so the same


def test_a_wheel_with_a_file_too_much_or_too_few_is_refused(capsys):
    contents = script("contents")
    assert contents.package() >= {"synflow_jax/py.typed", "synflow_jax/flow/_mode.py"}
    contents.compare("a.whl", {"one"}, {"one"})
    assert "1 files" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"missing \['one'\], too much \['tests/test.py'\]"):
        contents.compare("a.whl", {"tests/test.py"}, {"one"})


def test_a_project_that_uses_the_library_runs(capsys):
    with jax.numpy_dtype_promotion("standard"):  # as a user's session has it
        script("downstream").main()
    assert capsys.readouterr().out == f"synflow_jax {sf.__version__} keeps 48 48 48 (64, 128)\n"


@pytest.mark.parametrize("name", ["run", "release"])
def test_the_scripts_can_be_run(name):
    path = ROOT / ".ci" / name
    assert os.access(path, os.X_OK)
    assert "set -euo pipefail" in path.read_text()


def test_the_release_is_part_of_the_checks():
    assert "\n.ci/release\n" in (ROOT / ".ci" / "run").read_text()


def test_the_changelog_says_where_each_moved_name_is():
    """Every row of its table names wings, and after them the names of each, between semicolons."""
    text = (ROOT / "CHANGELOG.md").read_text()
    moved = {}
    for left, right in re.findall(r"^  \| (`\w+`(?:, `\w+`)*) \| (.*) \|$", text, re.M):
        names = [set(re.findall(r"`(\w+)`", part)) for part in right.split(";")]
        moved.update(zip(re.findall(r"`(\w+)`", left), names, strict=True))
    assert set(moved) == set(PUBLIC_WINGS) - {"structure"}  # which is new
    for wing, names in moved.items():
        assert names <= {*getattr(sf, wing).__all__} - {*sf.__all__}, wing
