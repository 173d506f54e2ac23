"""The plan of the library: wings import from wings below, and only through their faces."""

import ast
import graphlib
import importlib
import pathlib
import re
import types

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "synflow_jax"
WINGS = [  # from the bottom to the top
    *(
        "_version",
        "_progress",
        "_table",
        "trees",
        "jaxpr",
        "structure",
        "scaled",
        "flow",
        "selection",
        "plan",
        "saliency",
        "files",
        "compaction",
    ),
    *(
        "measure",
        "pruning",
        "training",
        "show",
        "frameworks",
        "linen",
        "nnx",
        "methods",
        "__init__",
    ),
]
OWNERS = {
    "optax": {"training"},
    "flax": {"frameworks"},
    "rich": {"_table", "_progress"},
    "scipy": {"files"},
    "safetensors": {"files"},
    "matplotlib": {"show"},
}
WHEN_USED = {"rich", "scipy", "safetensors", "matplotlib"}
FILES = sorted(PACKAGE.rglob("*.py"))
FOLDERS = sorted(folder.name for folder in PACKAGE.iterdir() if (folder / "__init__.py").exists())


def imports(tree):
    """Modules and names that a file imports, wherever it does; a submodule is the module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.module, "an import says its whole path"
            for alias in node.names:
                inner = node.module == "synflow_jax" and alias.name in WINGS
                yield (f"synflow_jax.{alias.name}" if inner else node.module), alias.name
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)


def name_of(path):
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def wing_of(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_go_down_and_through_faces(path):
    here, tree = wing_of(path), ast.parse(path.read_text())
    for module, _ in imports(tree):
        top, *inside = module.split(".")
        assert "_src" not in module
        assert top not in {"experiments", "tests", "benchmarks", "sklearn", "tensorflow_datasets"}
        assert here in OWNERS.get(top, {here}), f"{here} imports {top}"
        if top == "synflow_jax" and inside[0] == here:
            assert len(inside) == 2, f"{name_of(path)} imports its own face"
        elif top == "synflow_jax":
            assert WINGS.index(inside[0]) < WINGS.index(here), f"{here} imports {inside[0]}"
            assert len(inside) == 1 or inside[0] == "frameworks", f"{here} goes past a face"
    for node in tree.body:  # a plain import of the package must stay quick
        if isinstance(node, ast.Import | ast.ImportFrom):
            named = (
                [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            )
            assert not WHEN_USED.intersection(name.split(".")[0] for name in named)


@pytest.mark.parametrize("wing", FOLDERS)
def test_a_wing_is_a_face_over_private_files_that_import_downward(wing):
    files = [path for path in (PACKAGE / wing).glob("*.py") if path.stem != "__init__"]
    if wing != "frameworks":  # whose modules are public: one a framework
        assert all(path.stem.startswith("_") for path in files)
    prefix, graph = f"synflow_jax.{wing}.", {}
    for path in files:
        found = {module for module, _ in imports(ast.parse(path.read_text()))}
        graph[prefix + path.stem] = {module for module in found if module.startswith(prefix)}
    tuple(graphlib.TopologicalSorter(graph).static_order())  # raises where there is a cycle
    face = importlib.import_module(f"synflow_jax.{wing}")
    lines = face.__doc__.strip().splitlines()
    assert 3 <= len(lines) <= 8
    assert "Knows" in face.__doc__ or wing in {"plan", "frameworks"}
    assert set(getattr(face, "__all__", ())) <= set(vars(face))


def test_every_wing_is_in_the_list():
    assert {wing_of(path) for path in FILES} == set(WINGS)


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def modules_of(tree):
    """Modules of the package that a file has a name for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "synflow_jax":
                    whole = alias.name if alias.asname else "synflow_jax"
                    yield alias.asname or "synflow_jax", importlib.import_module(whole)
        elif isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "synflow_jax":
            for alias in node.names:
                value = getattr(importlib.import_module(node.module), alias.name, None)
                if isinstance(value, types.ModuleType):
                    yield alias.asname or alias.name, value


def value_of(node, modules):
    """Look up what a.b.c stands for, where `a` is a module of the package; None elsewhere."""
    if isinstance(node, ast.Name):
        return modules.get(node.id)
    if isinstance(node, ast.Attribute):
        return getattr(value_of(node.value, modules), node.attr, None)
    return None


def private_names(tree):
    """Private names of the package's modules that a file reaches for, in code or in a string."""
    modules = dict(modules_of(tree))
    for node in ast.walk(tree):
        pairs = []
        if isinstance(node, ast.Attribute):
            pairs = [(node.value, node.attr)]
        elif isinstance(node, ast.Call):  # such as setattr(module, "_name", …)
            words = [a.value for a in node.args[1:2] if isinstance(a, ast.Constant)]
            pairs = [(node.args[0], word) for word in words if isinstance(word, str)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found = re.findall(r"synflow_jax(?:\.\w+)*?\._[a-z]\w*", node.value)
            yield from (name for name in found if name != "synflow_jax._version")  # of setup.cfg
        for owner, name in pairs:
            module = value_of(owner, modules)
            if is_private(name) and isinstance(module, types.ModuleType):
                yield f"{module.__name__}.{name}"


REACHING = [
    "import synflow_jax as sf; sf.measure._flow",
    "import synflow_jax; synflow_jax.files._format.write",
    "from synflow_jax import show as drawn; drawn._drawing",
    "from synflow_jax import pruning; monkeypatch.setattr(pruning, '_rounds', 0)",
    "monkeypatch.setattr('synflow_jax.selection._top_k.TIE_PIVOTS', 0)",
]
USING = [
    "from synflow_jax.pruning import fixed_loop; fixed_loop._cache_size()",
    "import synflow_jax as sf; sf.pruning.fixed_loop._cache_size()",
    "import synflow_jax as sf; sf.__version__; sf.measure.log2_flow",
    "import jax; jax._private; setattr(jax, '_private', 0)",
]


@pytest.mark.parametrize(("code", "count"), [*((c, 1) for c in REACHING), *((c, 0) for c in USING)])
def test_reaching_for_a_private_name_is_seen(code, count):
    assert len(set(private_names(ast.parse(code)))) == count


@pytest.mark.parametrize("folder", ["tests", "experiments", "benchmarks", "docs"])
def test_others_use_faces_alone(folder):
    for path in sorted((ROOT / folder).rglob("*.py")):
        tree, here = ast.parse(path.read_text()), path.relative_to(ROOT)
        for module, name in imports(tree):
            if module.split(".")[0] == "synflow_jax":
                where = f"{here} imports {name} of {module}"
                assert module.count(".") <= 1, where
                assert not name.startswith("_") or name == "__version__", where
                if folder == "experiments" and "." in module and module.split(".")[1] in FOLDERS:
                    face = importlib.import_module(module)
                    assert name in getattr(face, "__all__", [name]), where
        if path != pathlib.Path(__file__):  # which has examples in strings
            assert not set(private_names(tree)), f"{here} reaches for {set(private_names(tree))}"


def test_tests_share_by_support_alone():
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        shared = {module for module, _ in imports(ast.parse(path.read_text()))}
        apart = ("tests.support", "tests.test_wings")  # the latter for the order of the wings
        taken = [m for m in shared if m.startswith("tests.") and not m.startswith(apart)]
        assert not taken, f"{path.relative_to(ROOT)} imports {taken}"
