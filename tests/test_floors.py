"""The drawing of the library: imports go strictly downward, and rooms stay small."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent / "synflow_jax"
FLOORS = {
    "__init__": 9,
    "report": 8,
    "homogeneity": 8,
    "methods": 8,
    "linen": 8,
    "prune": 7,
    "collapse": 7,
    "flow": 7,
    "budget": 6,
    "controls": 6,
    "diagnostics": 6,
    "data_saliency": 6,
    "transforms": 6,
    "saliency": 5,
    "masks": 4,
    "objectives": 4,
    "scope": 4,
    "stacked": 4,
    "inputs": 3,
    "flow_mixing": 3,
    "errors": 3,
    "tree": 2,
    "flow_rules": 2,
    "flow_loops": 2,
    "flow_walk": 1,
    "select": 1,
    "schedule": 1,
    "info": 1,
    "flow_values": 0,
    "_types": 0,
    "_version": 0,
}
OWNERS = {"optax": {"transforms"}, "flax": {"linen"}, "rich": {"report", "homogeneity"}}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [a.name for a in node.names] if node.module == "synflow_jax" else [""]
            yield from ((node.module, name) for name in names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)


@pytest.mark.parametrize("path", sorted(ROOT.glob("*.py")), ids=lambda p: p.stem)
def test_imports_go_down_and_files_stay_small(path):
    floor = FLOORS[path.stem]
    for module, name in imports(path):
        top = module.split(".")[0]
        assert "_src" not in module
        if top == "synflow_jax":
            room = module.split(".")[1] if "." in module else name
            assert FLOORS[room] < floor, f"{path.stem} imports {room}"
        assert path.stem in OWNERS.get(top, {path.stem}), f"{path.stem} imports {top}"
        assert top not in {"experiments", "tests", "sklearn", "matplotlib", "tensorflow_datasets"}
    assert len(path.read_text().splitlines()) <= 250


def test_every_room_is_in_the_drawing():
    assert {path.stem for path in ROOT.glob("*.py")} == set(FLOORS)
