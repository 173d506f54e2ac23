"""One cell of a comparison: prune some seeds by one method at one ρ, and train them.

Layer collapse and divergence are results, not errors: such networks are trained and recorded like
the others.
"""

import dataclasses
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from experiments.cells.methods import METHODS, ROUNDS, SCORED_ON_DATA
from experiments.cells.network import Network
from experiments.records.groups import DENSE
from experiments.records.rows import log10_key
from experiments.training.checkpoints import Checkpoints
from experiments.training.trainer import Trainer
from synflow_jax import CollapseWarning, UncertifiedWarning


@dataclasses.dataclass(frozen=True)
class Cell:
    """A method at a compression ratio; "dense" is the unpruned network, at ρ = 1.

    `rounds` is how often it scores and prunes; None is the number of the method's own paper.
    """

    method: str
    rho: float
    rounds: int | None = None

    @property
    def log10_rho(self) -> float:
        """log10 ρ, rounded so that it can be a key."""
        return log10_key(self.rho)


def each_once(methods: Sequence[str], ratios: Sequence[float]) -> list[Cell]:
    """List every method at every ρ, rising, each once."""
    rising = sorted({log10_key(rho): rho for rho in ratios}.values())
    return [Cell(method, rho) for method in dict.fromkeys(methods) for rho in rising]


class Trained(NamedTuple):
    """Masks, scores and times of one seed of a cell."""

    masks: Any
    top1: np.ndarray  # after each epoch, of the test set, (epochs,)
    top5: np.ndarray
    diverged: bool
    seconds: float  # of pruning
    train_seconds: float  # tests included


def run_cell(
    cell: Cell,
    networks: Sequence[Network],
    trainer: Trainer,
    tick: Callable[[], None],
    resume: Checkpoints | None = None,
) -> list[Trained]:
    """Prune and train all networks of a cell.

    Args:
      cell: method, ρ and rounds.
      networks: one a seed.
      trainer: trains them together.
      tick: called after every epoch.
      resume: where checkpoints are stored.

    Returns:
      The result of each network, in order.
    """
    _compile(cell, networks[0])
    pruned = [_timed(cell, network) for network in networks]
    start = time.perf_counter()
    scores, lost = _train(networks, [masks for masks, _ in pruned], trainer, tick, resume)
    seconds = (time.perf_counter() - start) / len(networks)
    return [
        Trained(masks, scores[0, :, seed], scores[1, :, seed], bool(lost[seed]), spent, seconds)
        for seed, (masks, spent) in enumerate(pruned)
    ]


def _compile(cell: Cell, network: Network) -> None:
    """Prune once, untimed, if the method has not run yet: this compiles it."""
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
    rounds = cell.rounds or ROUNDS.get(cell.method, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CollapseWarning)
        warnings.simplefilter("ignore", UncertifiedWarning)
        return jax.block_until_ready(METHODS[cell.method](network, cell.rho, rounds))


def _train(
    networks: Sequence[Network],
    masks: list[Any],
    trainer: Trainer,
    tick: Callable[[], None],
    resume: Checkpoints | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Train all networks; return top-1 and top-5, (2, epochs, seeds), and whether each diverged."""
    initial, keys = together(networks)
    masks = jax.tree.map(lambda *leaves: jnp.stack(leaves), *masks)
    history, finite = [], np.ones(len(networks), bool)
    for variables, scores in trainer.epochs(initial, masks, keys, resume=resume):
        history.append(np.asarray([scores.top1, scores.top5], np.float64))
        finite = np.asarray(all_finite(variables["params"]))
        tick()
    return np.stack(history, axis=1), ~finite


def together(networks: Sequence[Network]) -> tuple[Any, Array]:
    """Stack variables, and keys for the order of examples, on a leading seed axis."""
    stack = lambda *leaves: jnp.stack(leaves)
    variables = jax.tree.map(stack, *[network.variables for network in networks])
    return variables, jnp.stack([network.keys.order for network in networks])


@jax.jit
@jax.vmap
def all_finite(params: Any) -> Array:
    """Whether all params of each seed are finite, (seeds,)."""
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(params)]))
