"""One cell of a comparison: prune some seeds by one method at one ρ, train them, say what came out.

A method that empties a layer is a result, not an error: it is trained like the others.
"""

import dataclasses
import math
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.common.methods import METHODS, Network
from experiments.common.rows import Row
from experiments.common.train import Trainer
from synflow_jax import CollapseWarning, collapsed_layers, log2_flow, report

DENSE = "dense"


@dataclasses.dataclass(frozen=True)
class Cell:
    """A method at a compression ratio; "dense" is the network as it is, at ρ = 1."""

    method: str
    rho: float

    @property
    def log10_rho(self) -> float:
        """The compression on the axis of the figure, rounded so that it can be a key."""
        return round(math.log10(self.rho), 6)


def run_cell(
    cell: Cell, networks: Sequence[Network], trainer: Trainer, tick: Callable[[], None]
) -> list[Row]:
    """Prune and train all networks of a cell.

    Args:
      cell: what to do.
      networks: one a seed.
      trainer: trains them together.
      tick: called after every epoch.

    Returns:
      One row of results a network, in their order.
    """
    pruned = [_timed(cell, network) for network in networks]
    masks = [mask for mask, _ in pruned]
    start = time.perf_counter()
    accuracies = _train(networks, masks, trainer, tick)
    seconds = (time.perf_counter() - start) / len(networks)
    return [
        {
            "accuracy": round(float(history[-1]), 6),
            "accuracy_best": round(float(history.max()), 6),
            **_describe(network, mask),
            "seconds": round(prune_seconds, 4),
            "train_seconds": round(seconds, 4),
        }
        for network, (mask, prune_seconds), history in zip(
            networks, pruned, accuracies.T, strict=True
        )
    ]


def _timed(cell: Cell, network: Network) -> tuple[Any, float]:
    jax.block_until_ready((network.params, network.batches))
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CollapseWarning)
        masks = jax.block_until_ready(_prune(cell, network))
    return masks, time.perf_counter() - start


def _prune(cell: Cell, network: Network) -> Any:
    if cell.method == DENSE:
        return jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), network.params)
    return METHODS[cell.method](network, cell.rho)


def _train(
    networks: Sequence[Network], masks: list[Any], trainer: Trainer, tick: Callable[[], None]
) -> np.ndarray:
    """Train all networks and return the test accuracies, (epochs, seeds)."""
    stack = lambda *leaves: jnp.stack(leaves)
    variables = jax.tree.map(stack, *[network.variables for network in networks])
    keys = jnp.stack([jax.random.fold_in(network.key, 1) for network in networks])
    accuracies = []
    for _, accuracy in trainer.epochs(variables, jax.tree.map(stack, *masks), keys):
        accuracies.append(np.asarray(accuracy, np.float64))
        tick()
    return np.stack(accuracies)


def _describe(network: Network, masks: Any) -> Row:
    table = report(network.params, masks)
    flow = float(log2_flow(network.params, network.apply_fn, network.dataset.shape, masks))
    return {
        "kept": table.kept,
        "prunable": table.weights,
        "collapsed": list(collapsed_layers(masks)),
        "log10_flow": round(flow * math.log10(2), 4) if math.isfinite(flow) else None,
        "kept_per_layer": {row.layer: row.kept for row in table.rows},
    }
