"""The notebooks are whole: executed in order, small, about names that exist, and of no machine."""

import ast
import json
import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
NAMES = [
    "01_synflow_in_ten_minutes",
    "02_conservation_laws",
    "03_layer_collapse",
    "04_transformer_on_a_mesh",
    "05_your_own_method",
]
EIGHT = 'jax.config.update("jax_num_cpu_devices", 8)'
MACHINE = re.compile(r"/(home|root|tmp|usr|opt|var|work|mnt|content|Users)/|[A-Z]:\\\\|ipykernel")


def read(name):
    return json.loads((FOLDER / f"{name}.ipynb").read_text())


def sources(name, kind):
    return ["".join(c["source"]) for c in read(name)["cells"] if c["cell_type"] == kind]


def outputs(name):
    return [out for c in read(name)["cells"] for out in c.get("outputs", [])]


def words(output):
    """All that an output says, pictures left out."""
    said = output.get("data", {})
    texts = [said[mime] for mime in said if not mime.startswith("image/")]
    return "".join("".join(text) for text in [*texts, output.get("text", "")])


def test_these_are_the_notebooks():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_opens_with_its_title_and_installs_what_is_missing(name):
    assert sources(name, "markdown")[0].startswith("# ")
    first = sources(name, "code")[0]
    own = [line for line in first.splitlines() if EIGHT in line]
    assert len(own) == (name == NAMES[3])  # before JAX starts, so before the line that prints
    for line in own:
        first = first.replace(f"\n{line}\n", "")
    assert first == sources(NAMES[0], "code")[0]
    for part in ("pip_install(str(found[0]))", "raise SystemExit", "SYNFLOW_SMALL"):
        assert part in first
    assert "default_backend" in first.splitlines()[-1]


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_was_run_from_top_to_bottom(name):
    cells = [cell for cell in read(name)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    found = outputs(name)
    assert {out["output_type"] for out in found} <= {"stream", "display_data", "execute_result"}
    assert {out["name"] for out in found if "name" in out} == {"stdout"}  # no warning
    assert sum("image/png" in out.get("data", {}) for out in found) >= 2
    assert read(name)["metadata"]["kernelspec"]["name"] == "python3"


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_small_and_of_no_machine(name):
    assert (FOLDER / f"{name}.ipynb").stat().st_size < 500_000
    said = [*sources(name, "markdown"), *sources(name, "code"), *map(words, outputs(name))]
    assert [text for text in said if MACHINE.search(text)] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_uses_names_that_there_are(name):
    code = "\n".join(sources(name, "code"))
    imported = [
        (node.module, alias.name)
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "synflow_jax"
        for alias in node.names
    ]
    assert imported
    for module, one in imported:
        named = one in import_module(module).__all__
        assert named or find_spec(f"synflow_jax.{one}"), f"{module} has no {one}"
        assert len(re.findall(rf"\b{one}\b", code)) > 1, f"{one} is imported and not used"


@pytest.mark.parametrize("name", [*NAMES, "README"])
def test_links_lead_somewhere(name):
    text = (FOLDER / "README.md").read_text()
    text = text if name == "README" else "\n".join(sources(name, "markdown"))
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (FOLDER / link).exists(), link
    for path in re.findall(r"`(docs/[^`]+)`", text):
        assert (FOLDER.parent / path).exists(), path


def test_the_table_has_a_row_a_notebook():
    rows = [x for x in (FOLDER / "README.md").read_text().splitlines() if x.startswith("| [")]
    assert [re.match(r"\| \[\d\d [^]]+\]\((\w+)\.ipynb\)", row)[1] for row in rows] == NAMES
    for row in rows:
        assert 0 < float(row.split("|")[-2]) <= 5  # minutes


def first_cell():
    """The part of the first cell that installs the library, with the packages taken for missing."""
    return sources(NAMES[0], "code")[0].partition('\nif needs("matplotlib"')[0]


@pytest.mark.parametrize("have", ["checkout", "wheel", "nothing"])
def test_the_first_cell_installs_what_lies_beside_it_or_stops(have, tmp_path, monkeypatch):
    """The library has no release: nothing is fetched by a name that is not ours."""
    here = tmp_path / "notebooks"
    here.mkdir()
    if have == "checkout":
        (tmp_path / "synflow_jax").mkdir()
        (tmp_path / "synflow_jax" / "__init__.py").touch()
    if have == "wheel":
        (here / "synflow_jax-0.1.0-py3-none-any.whl").touch()
    asked = []

    def run(command, check):
        asked.append(command)
        return SimpleNamespace(returncode=0)

    monkeypatch.chdir(here)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(
        "subprocess.run",
        lambda command, check: asked.append(command) or SimpleNamespace(returncode=0),
    )
    if have == "nothing":
        with pytest.raises(SystemExit, match="synflow_jax is not released yet"):
            exec(first_cell(), {})
        assert asked == []
        return
    exec(first_cell(), {})
    found = tmp_path if have == "checkout" else next(here.glob("*.whl"))
    assert [command[-1] for command in asked] == [str(found)]


def test_no_page_installs_by_a_name_that_is_not_ours():
    root = FOLDER.parent
    pages = [root / "README.md", *(root / "docs").rglob("*.md"), *FOLDER.glob("*.*")]
    for page in pages:
        text = page.read_text()
        assert not re.search(r"pip install [^`\n]*\bsynflow_jax\b(?!\[)", text), page
        assert "git+http" not in text, page
        assert "synflow-jax/" not in text, page
