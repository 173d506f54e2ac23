"""One cell of a comparison: prune some seeds by one method at one ρ, train them, say what came out.

A method that empties a layer is a result, not an error: it is trained like the others. So is a
network that diverges.
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
from jax import Array

from experiments.common.methods import METHODS, SCORED_ON_DATA, Network
from experiments.common.rows import Row, log10_key
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
        return log10_key(self.rho)


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
    _compile(cell, networks[0])
    pruned = [_timed(cell, network) for network in networks]
    start = time.perf_counter()
    accuracies, diverged = _train(networks, [mask for mask, _ in pruned], trainer, tick)
    seconds = (time.perf_counter() - start) / len(networks)
    results = zip(networks, pruned, accuracies.T, diverged, strict=True)
    return [
        {
            "accuracy": round(float(history[-1]), 6),
            "accuracy_best": round(float(history.max()), 6),
            "diverged": bool(lost),
            **_describe(network, mask),
            "seconds": round(prune_seconds, 4),
            "train_seconds": round(seconds, 4),
        }
        for network, (mask, prune_seconds), history, lost in results
    ]


def _compile(cell: Cell, network: Network) -> None:
    """Prune once, untimed, where a method has not run yet."""
    if cell.method not in network.compiled:
        _prune(cell, network)
        network.compiled.add(cell.method)


def _timed(cell: Cell, network: Network) -> tuple[Any, float]:
    data = network.batches if cell.method in SCORED_ON_DATA else ()
    jax.block_until_ready((network.params, data))
    start = time.perf_counter()
    masks = _prune(cell, network)
    return masks, time.perf_counter() - start


def _prune(cell: Cell, network: Network) -> Any:
    if cell.method == DENSE:
        return jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), network.params)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CollapseWarning)
        return jax.block_until_ready(METHODS[cell.method](network, cell.rho))


def _train(
    networks: Sequence[Network], masks: list[Any], trainer: Trainer, tick: Callable[[], None]
) -> tuple[np.ndarray, np.ndarray]:
    """Train all networks; return test accuracies, (epochs, seeds), and who diverged, (seeds,)."""
    stack = lambda *leaves: jnp.stack(leaves)
    initial = jax.tree.map(stack, *[network.variables for network in networks])
    keys = jnp.stack([network.keys.order for network in networks])
    accuracies, finite = [], np.ones(len(networks), bool)
    for variables, scores in trainer.epochs(initial, jax.tree.map(stack, *masks), keys):
        accuracies.append(np.asarray(scores.top1, np.float64))
        finite = np.asarray(_finite(variables["params"]))
        tick()
    return np.stack(accuracies), ~finite


@jax.jit
@jax.vmap
def _finite(params: Any) -> Array:
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(params)]))


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
