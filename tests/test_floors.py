"""The drawing of the library: imports go strictly downward, and rooms stay small."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent / "synflow_jax"
FLOORS = {
    "__init__": 14,
    "report": 12,
    "homogeneity": 12,
    "visualize": 13,
    "shares": 8,
    "sides": 6,
    "drawing": 0,
    "methods": 12,
    "linen": 12,
    "nnx": 12,
    "prune": 11,
    "compact": 12,
    "compact.slim": 11,
    "compact.network": 10,
    "compact.wrapped": 9,
    "compact.moving": 5,
    "compact.shrink": 8,
    "compact.rules": 7,
    "compact.cost": 8,
    "compact.constant": 8,
    "compact.needed": 7,
    "compact.zeros": 7,
    "compact.follow": 6,
    "compact.listing": 5,
    "compact.reshape": 1,
    "compact.even": 2,
    "compact.units": 0,
    "sweep": 10,
    "gradual": 10,
    "rounds": 9,
    "turn": 8,
    "compete": 7,
    "verdict": 9,
    "collapse": 9,
    "flow": 9,
    "flow.mode": 8,
    "flow.mixing": 5,
    "flow.rules": 4,
    "flow.loops": 4,
    "flow.walk": 3,  # of scaled, flow uses the equations alone
    "flow.values": 0,
    "budget": 7,
    "choose": 6,
    "patterns": 5,
    "tiles": 1,
    "order": 4,
    "summary": 4,
    "data_methods": 12,
    "progress": 0,
    "controls": 7,
    "diagnostics": 7,
    "data_saliency": 7,
    "transforms": 7,
    "storage": 4,
    "convert": 4,
    "sparse": 4,
    "flow_score": 7,
    "block_sparse": 6,
    "flow_saliency": 6,
    "saliency": 5,
    "masks": 4,
    "objectives": 4,
    "scope": 4,
    "stacked": 4,
    "inputs": 3,
    "sources": 4,
    "errors": 3,
    "tree": 2,
    "prefix": 2,
    "packing": 0,
    "packed": 0,
    "measure": 1,
    "scaled": 4,  # knows nothing of pruning
    "scaled.loops": 3,
    "scaled.interpreter": 2,
    "scaled.rules": 1,
    "scaled.lowering": 0,
    "scaled.equations": 0,
    "scaled.array": 0,
    "select": 1,
    "cut": 0,
    "schedule": 1,
    "info": 1,
    "layout": 0,
    "shown": 0,
    "adapter": 1,
    "_types": 0,
    "_version": 0,
}
OWNERS = {
    "optax": {"transforms", "gradual"},
    "flax": {"linen", "nnx"},
    "rich": {"report", "homogeneity", "shown", "summary", "compact.network", "compact.slim"},
    "scipy": {"sparse"},
    "safetensors": {"convert"},
    "matplotlib": {"drawing"},
}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = (
                [a.name for a in node.names] if node.module.split(".")[0] == "synflow_jax" else [""]
            )
            yield from ((node.module, name) for name in names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)


def room_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=room_of)
def test_imports_go_down_and_files_stay_small(path):
    here = room_of(path)
    for module, name in imports(path):
        top = module.split(".")[0]
        assert "_src" not in module
        if top == "synflow_jax":
            inside = module.removeprefix("synflow_jax").removeprefix(".")
            whole = f"{inside}.{name}".strip(".")
            room = whole if whole in FLOORS else inside
            assert FLOORS[room] < FLOORS[here], f"{here} imports {room}"
            assert room.startswith("scaled") or not here.startswith("scaled"), here
        assert here in OWNERS.get(top, {here}), f"{here} imports {top}"
        assert top not in {"experiments", "tests", "sklearn", "tensorflow_datasets"}
    assert len(path.read_text().splitlines()) <= 250


def test_every_room_is_in_the_drawing():
    assert {room_of(path) for path in ROOT.rglob("*.py")} == set(FLOORS)
