"""The public names: there, documented with a running example, and nothing else."""

import dataclasses
import inspect
import types

import pytest

import synflow_jax as sf

CONTRACT = """
    synflow magnitude random snip grasp prune
    synflow_saliency magnitude_saliency random_saliency snip_saliency grasp_saliency
    gradient_saliency cross_entropy gradient_norm weight_energy
    exponential linear cubic one_shot certified globally layerwise uniform erk is_prunable matching
    unstructured blocks channels slices runs
    apply_masks keep_masks gradual_magnitude shuffle reinitialise
    log2_flow layer_flow neuron_flow flow_score conservation_gap report
    collapsed_layers dead_branches max_compression critical_compression effective_density
    layer_order flow_mode homogeneity_report closed_leaves stacked_layers Homogeneity FlowWarning
    save_masks load_masks save_sparse load_sparse
    to_torch from_torch save_arrays load_arrays to_bcoo to_csr to_blocks BlockSparse
    compact Compact slim multiply_adds entries num_bytes visualize
    PruneInfo Report Summary summary NeuronFlow KeepMasksState GradualState
    CollapseWarning UncertifiedWarning
"""
CONTRACT = set(CONTRACT.split())
PLAIN = {"gradient_norm", "weight_energy"}
FUNCTIONS = [n for n in sorted(CONTRACT) if inspect.isfunction(getattr(sf, n, None))]


def test_the_names_are_those_of_the_contract():
    public = {
        name
        for name, value in vars(sf).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert public == CONTRACT


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_is_documented(name):
    doc = inspect.getdoc(getattr(sf, name)) or ""
    first, _, rest = doc.partition("\n")
    assert first.endswith(".")
    assert len(first) < 100
    if name not in PLAIN:
        arguments = inspect.signature(getattr(sf, name)).parameters
        for section in ("Args:", "Returns:", "Example:")[not arguments :]:
            assert section in rest, section
        for argument in arguments:
            assert f"  {argument}: " in rest or f"  *{argument}: " in rest, argument


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
