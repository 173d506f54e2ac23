"""Cells of the comparison on networks with branches: the methods, and one seed of a task.

`synflow` and `fair` score the network in flow mode: `synflow` leaves each branch the flow that it
has, `fair` gives it half of the flow beside its skip, and `fair-fifth` a fifth. `random-erk` keeps
random weights at ERK densities, and `synflow-erk` those that `synflow` prefers at the same
densities. `synflow-plain` scores the network as it is, outside of flow mode.
"""

import time
import warnings
from functools import partial
from typing import Any, Literal

from experiments.cells import decoder
from experiments.cells.cell import Cell
from experiments.cells.decoder import Start
from experiments.cells.tasks import Task, part_of
from experiments.records.groups import DENSE
from experiments.records.rows import Row
from synflow_jax import collapsed_layers, report, synflow
from synflow_jax.flow import FlowWarning

MethodName = Literal["synflow", "fair", "fair-fifth", "random-erk", "synflow-erk", "synflow-plain"]
COMPARED: tuple[MethodName, ...] = ("synflow", "fair", "fair-fifth", "random-erk")

METHODS: decoder.Methods = {
    **{name: decoder.METHODS[name] for name in (DENSE, "synflow", "random-erk", "synflow-erk")},
    "fair": partial(decoder.by_flow, branches=0.5),
    "fair-fifth": partial(decoder.by_flow, branches=0.2),
    "synflow-plain": lambda net, rho: synflow(net.params, net.apply_fn, net.shape, rho),
}


def prune(cell: Cell, net: Start) -> Any:
    """Return the masks of a cell, without a warning of a network that does not conserve flow."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FlowWarning)
        return decoder.prune(cell, net, METHODS)


def run_one(cell: Cell, net: Start, task: Task) -> Row:
    """Prune and train one network, and return the columns of its row.

    `value` is the figure of the task, None where training ended with params that are not finite.
    """
    begin = time.perf_counter()
    masks = prune(cell, net)
    pruned = time.perf_counter()
    trained = task.train(net, masks)
    table = report(net.params, masks)
    return {
        "rho": cell.rho,
        "measure": task.measure.name,
        "value": round(trained.value, 5) if trained.finite else None,
        "diverged": not trained.finite,
        "kept": table.kept,
        "prunable": table.weights,
        "collapsed": list(collapsed_layers(masks)),
        "kept_per_layer": {row.layer: row.kept for row in table.rows},
        "density_per_part": _densities(table.rows, task.parts),
        "seconds": round(pruned - begin, 3),
        "train_seconds": round(time.perf_counter() - pruned, 3),
    }


def _densities(layers: Any, parts: dict[str, str]) -> dict[str, float]:
    """Return the kept fraction of each part of the network that has weights."""
    kept, weights = dict.fromkeys(parts, 0), dict.fromkeys(parts, 0)
    for row in layers:
        part = part_of(row.layer, parts)
        kept[part] += row.kept
        weights[part] += row.weights
    return {part: round(kept[part] / count, 5) for part, count in weights.items() if count}
