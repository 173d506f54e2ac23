"""Cells of the decoder: the compared methods, and pruning and training of one seed.

SynFlow scores the decoder in flow mode, because norms and attention break conservation, and leaves
branches the flow that they have by themselves (`cells.branches` compares shares of them).
`random-erk` keeps random weights at ERK densities. `synflow-erk` keeps SynFlow's best weights of
each layer at the same densities, which separates its choice of layer densities from its choice of
weights.
"""

import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from experiments.cells.cell import Cell
from experiments.records.groups import DENSE
from experiments.records.rows import Row
from experiments.training.language import LanguageTrainer
from synflow_jax import (
    CollapseWarning,
    collapsed_layers,
    erk,
    flow_mode,
    linen,
    magnitude,
    random,
    report,
    synflow,
)

MethodName = Literal["synflow", "random-erk", "magnitude", "synflow-erk"]


class Start(NamedTuple):
    """A network at its initialisation from one seed."""

    params: Any
    apply_fn: Any
    shape: Any  # one example; of a decoder, tokens
    masks_key: Array
    order_key: Array  # of what training draws; of a decoder, windows of text
    statistics: Any = None  # the Linen collections beside params


def start(model: nn.Module, context: int, seed: int) -> Start:
    """Initialise a decoder that reads `context` tokens."""
    keys = jax.random.split(jax.random.key(seed), 3)
    variables = jax.jit(model.init)(keys[0], jnp.ones((1, context), jnp.int32))
    shape = jax.ShapeDtypeStruct((context,), jnp.int32)
    return Start(*linen.from_linen(model, variables), shape, keys[1], keys[2])


def by_flow(net: Start, rho: float, branches: float | None = None, **settings: Any) -> Any:
    """Prune by SynFlow in flow mode, each branch with this share of the flow beside its skip."""
    network = flow_mode(net.apply_fn, branches=branches)
    return synflow(net.params, network, net.shape, rho, **settings)


Methods = Mapping[str, Callable[[Start, float], Any]]
METHODS: Methods = {
    DENSE: lambda net, _: jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), net.params),
    "synflow": by_flow,
    "random-erk": lambda net, rho: random(net.masks_key, net.params, rho, densities=erk),
    "magnitude": lambda net, rho: magnitude(net.params, rho),
    "synflow-erk": lambda net, rho: by_flow(net, rho, scope=erk),
}


def prune(cell: Cell, net: Start, methods: Methods = METHODS) -> Any:
    """Return the masks of a cell; layer collapse is a result, so its warning is ignored."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CollapseWarning)
        return jax.block_until_ready(methods[cell.method](net, cell.rho))


def run_one(cell: Cell, net: Start, trainer: LanguageTrainer) -> Row:
    """Prune and train one decoder, and return the columns of its row; a NaN loss is None."""
    begin = time.perf_counter()
    masks = prune(cell, net)
    pruned = time.perf_counter()
    outcome = trainer(net.params, masks, net.order_key)
    table, finite = report(net.params, masks), bool(outcome.finite)
    return {
        "rho": cell.rho,
        "bits": round(float(outcome.validation), 5) if finite else None,
        "bits_train": round(float(outcome.train), 5) if finite else None,
        "diverged": not finite,
        "kept": table.kept,
        "prunable": table.weights,
        "collapsed": list(collapsed_layers(masks)),
        "kept_per_layer": {row.layer: row.kept for row in table.rows},
        "density_per_layer": {row.layer: round(row.density, 5) for row in table.rows},
        "seconds": round(pruned - begin, 3),
        "train_seconds": round(time.perf_counter() - pruned, 3),
    }
