"""The pages on the inside of the library: what they name exists, and where they say."""

import ast
import importlib
import itertools
import re

import pytest

from tests.support.pages import ROOT
from tests.test_wings import WINGS

PACKAGE = ROOT / "synflow_jax"
PAGE = ROOT / "docs" / "architecture.md"
TEXT = PAGE.read_text()
NAMED = re.findall(r"`(\w+)`\s+\(`([\w/]+\.py)`\)", TEXT)  # `name` (`file.py`)
DRAWING = re.search(r"```text\n(.*?)```", TEXT, re.DOTALL)[1].splitlines()[2:]
ROWS = {line.split()[0]: re.findall(r"(\d+) (\w+)", line) for line in DRAWING}
STEPS = dict(re.findall(r"^(\d+)\. (.*?)(?=^\d+\. |^## )", TEXT, re.DOTALL | re.MULTILINE))


def wing_of(path):
    return path.removesuffix(".py").split("/")[0]


@pytest.mark.parametrize(("name", "path"), sorted(set(NAMED)))
def test_what_the_page_names_is_defined_in_that_file(name, path):
    body = ast.parse((PACKAGE / path).read_text()).body
    assert name in {getattr(node, "name", None) for node in body}
    module = importlib.import_module(f"synflow_jax.{path.removesuffix('.py').replace('/', '.')}")
    assert hasattr(module, name)


def test_the_drawing_has_the_wings_in_their_order_from_the_top_down():
    assert list(ROWS) == [wing for wing in reversed(WINGS) if wing in ROWS]
    assert len(ROWS) > 5


def test_the_drawing_shows_what_the_sentences_say():
    homes = {name: wing_of(path) for name, path in NAMED}
    for wing, marks in ROWS.items():
        assert marks
        for number, name in marks:
            assert homes[name] == wing
            assert f"`{name}`" in STEPS[number]
    assert {number for marks in ROWS.values() for number, _ in marks} == set(STEPS) - {"13"}
    assert list(STEPS) == [str(i) for i in range(1, 14)]


def test_steps_stand_in_the_drawing_from_left_to_right():
    """A later phase of the call is further to the right."""
    place = {}
    for line in DRAWING:
        for found in re.finditer(r"(\d+) \w+", line):
            place.setdefault(int(found[1]), set()).add(found.start() - len(found[1]))
    phases = ((1, 2, 3, 4), (5, 6, 7, 8, 9), (10, 11, 12))
    for before, after in itertools.pairwise(phases):
        left, right = ([at for step in phase for at in place[step]] for phase in (before, after))
        assert max(left) < min(right)


def test_the_other_wings_that_the_page_names_exist():
    rest = TEXT.split("## The other wings")[1]
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    named = set(re.findall(r"`(\w+)`", rest))
    assert named == folders - set(ROWS)


CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
FILES = sorted(set(re.findall(r"`([\w./]*/[\w.]+\.(?:py|md))`", CONTRIBUTING)))
TABLE = re.findall(r"^\| a.* \| `([\w/.]+)`.* \| `([\w/.]+)` \|$", CONTRIBUTING, re.M)


@pytest.mark.parametrize("name", [*FILES, ".ci/run"])
def test_the_files_that_contributors_are_sent_to_exist(name):
    assert (ROOT / name).exists()


def test_each_kind_of_addition_has_one_file_to_open_and_one_test():
    assert len(TABLE) == 7
    assert all(test.startswith("tests/") for _, test in TABLE)
    assert {name for row in TABLE for name in row} <= set(FILES)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("METHODS", "tests/laws/test_contract.py"),
        ("Saliency", "synflow_jax/saliency/_protocol.py"),
        ("PRIMITIVES", "synflow_jax/compaction/_primitives.py"),
        ("RULES", "synflow_jax/flow/_primitives.py"),
        ("RULES", "synflow_jax/scaled/_rules.py"),
    ],
)
def test_the_names_that_contributors_are_told_to_extend_exist(name, path):
    assert re.search(rf"`{name}`", CONTRIBUTING)
    assert path in FILES
    defined = set()
    for node in ast.parse((ROOT / path).read_text()).body:
        defined.add(getattr(node, "name", None))
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        defined.update(getattr(target, "id", None) for target in targets)
    assert name in defined


def test_contributing_is_a_page_of_the_documents():
    assert "../CONTRIBUTING.md" in (ROOT / "docs" / "contributing.md").read_text()
    assert "(contributing.md)" in (ROOT / "docs" / "index.md").read_text()
