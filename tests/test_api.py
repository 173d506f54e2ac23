"""The public names: there, documented with a running example, and nothing else."""

import dataclasses
import importlib
import inspect
import pathlib
import re
import subprocess
import sys
import types

import pytest

import synflow_jax as sf
from tests.support.wings import PUBLIC_WINGS

ROOT = pathlib.Path(__file__).parents[1]
PLAIN = {"gradient_norm", "weight_energy"}


PUBLIC = {wing: sorted(getattr(sf, wing).__all__) for wing in PUBLIC_WINGS}
DOCUMENTED = [(f"synflow_jax.{wing}", name) for wing, names in PUBLIC.items() for name in names]
DOCUMENTED += [("synflow_jax", name) for name in sf.__all__]


def test_what_is_at_the_top_is_a_method_or_stands_in_a_wing():
    for name in sf.__all__:
        value = getattr(sf, name)
        of_trees = getattr(value, "__module__", "").startswith("synflow_jax.trees")
        homes = [wing for wing, names in PUBLIC.items() if name in names]
        assert len(homes) == (0 if value.__module__ == "synflow_jax.methods" else 1) or of_trees
        assert all(getattr(getattr(sf, wing), name) is value for wing in homes)


def test_a_plain_import_loads_no_framework_and_nothing_that_draws():
    code = (
        "import sys, synflow_jax as sf;"
        "early = {'flax', 'matplotlib', 'rich', 'scipy'} & {*sys.modules};"
        "assert not early, early;"
        "assert sf.linen.from_linen and sf.nnx.from_nnx;"
        "assert 'flax' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_adapters_are_reached_in_each_way():
    from synflow_jax import linen, nnx
    from synflow_jax.linen import from_linen
    from synflow_jax.nnx import from_nnx

    assert sf.linen.from_linen is linen.from_linen is from_linen
    assert sf.nnx.from_nnx is nnx.from_nnx is from_nnx
    with pytest.raises(AttributeError, match="no attribute 'haiku'"):
        sf.haiku  # noqa: B018


def test_no_name_stands_in_two_wings():
    names = [name for names in PUBLIC.values() for name in names]
    assert len(names) == len(set(names))


def test_no_module_hides_behind_a_name():
    for name in sf.__all__:
        assert not isinstance(getattr(sf, name), types.ModuleType)


@pytest.mark.parametrize(("module", "name"), DOCUMENTED)
def test_every_function_is_documented(module, name):
    value = getattr(importlib.import_module(module), name)
    doc = inspect.getdoc(value) or ""
    first, _, rest = doc.partition("\n")
    assert first.endswith(".")
    assert len(first) < 100
    if inspect.isfunction(value) and name not in PLAIN:
        arguments = inspect.signature(value).parameters
        for section in ("Args:", "Returns:", "Example:")[not arguments :]:
            assert section in rest, section
        for argument in arguments:
            assert re.search(rf"  \*{{0,2}}{argument}: ", rest), argument


def test_extras_of_the_presets_are_keyword_only():
    first = {
        "synflow": ["params", "apply_fn", "shape", "rho"],
        "magnitude": ["params", "rho"],
        "random": ["key", "params", "rho"],
        "snip": ["params", "loss_fn", "batches", "rho"],
        "grasp": ["params", "loss_fn", "batches", "rho"],
        "prune": ["params", "saliency", "rho", "rounds"],
    }
    for name, wanted in first.items():
        parameters = inspect.signature(getattr(sf, name)).parameters.values()
        assert [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD] == wanted


def test_info_is_a_frozen_record():
    assert [f.name for f in dataclasses.fields(sf.PruneInfo)] == [
        "layers",
        "sizes",
        "kept",
        "log2_flow",
        "share",
        "finite",
        "rounds",
        "units",
    ]
