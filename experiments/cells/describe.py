"""The columns of a row: accuracy, kept weights, flow, cost and time of a trained network."""

import math
from collections.abc import Mapping
from typing import Any

from experiments.cells.cell import Trained
from experiments.cells.network import Network
from experiments.records.rows import Row
from synflow_jax import collapsed_layers, effective_density, log2_flow, report


def brief(network: Network, trained: Trained) -> Row:
    """Return the columns of a comparison: accuracy, kept weights, flow and time.

    Args:
      network: the network at its initialisation.
      trained: its masks, scores and times.

    Returns:
      The columns.
    """
    return {
        "accuracy": round(float(trained.top1[-1]), 6),
        "accuracy_best": round(float(trained.top1.max()), 6),
        "diverged": trained.diverged,
        **_kept(network, trained.masks),
        **_times(trained),
    }


def full(network: Network, trained: Trained, dense: Mapping[str, int]) -> Row:
    """Return the columns of a figure: best and last epoch, multiply-adds, effective density.

    Args:
      network: the network at its initialisation.
      trained: its masks, scores and times.
      dense: multiply-adds of one example by layer, before pruning.

    Returns:
      The columns; those by layer without names are in the order of kept_per_layer.
    """
    shape, masks = network.dataset.shape, trained.masks
    effective = effective_density(network.params, masks, network.apply_fn, shape)
    densities = {row.layer: row.density for row in report(network.params, masks).rows}
    remaining = [round(dense[layer] * density) for layer, density in densities.items()]
    return {
        "top1_best": round(float(trained.top1.max()), 6),
        "top1_final": round(float(trained.top1[-1]), 6),
        "top5_final": round(float(trained.top5[-1]), 6),
        "diverged": trained.diverged,
        **_kept(network, masks),
        "effective_density": float(f"{effective:.6g}"),
        "multiply_adds_dense": sum(dense[layer] for layer in densities),
        "multiply_adds": sum(remaining),
        "multiply_adds_per_layer": remaining,
        **_times(trained),
    }


def _kept(network: Network, masks: Any) -> Row:
    table = report(network.params, masks)
    flow = float(log2_flow(network.params, network.apply_fn, network.dataset.shape, masks))
    return {
        "kept": table.kept,
        "prunable": table.weights,
        "collapsed": list(collapsed_layers(masks)),
        "log10_flow": round(flow * math.log10(2), 4) if math.isfinite(flow) else None,
        "kept_per_layer": {row.layer: row.kept for row in table.rows},
    }


def _times(trained: Trained) -> Row:
    return {
        "seconds": round(trained.seconds, 4),
        "train_seconds": round(trained.train_seconds, 4),
    }
