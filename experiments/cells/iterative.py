"""The cells of Figure 5: iterative magnitude pruning, and layer magnitudes during training."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from rich.console import Console

from experiments.cells.cell import Cell, Trained, all_finite, run_cell, together
from experiments.cells.network import Network
from experiments.cells.plan import Plan
from experiments.records import rows as store
from experiments.records.rows import Row
from experiments.training.checkpoints import Checkpoints
from experiments.training.imp import IterativePruning, Level
from experiments.training.trainer import Trainer
from synflow_jax import report
from synflow_jax.plan import is_prunable
from synflow_jax.pruning import reinitialise

IMP, XAVIER = "imp", "xavier"


class Iterative:
    """Runs cells; those of method "imp" by iterative magnitude pruning, with one level a round.

    These cells share one dense training. Only cells of other methods write checkpoints.
    """

    def __init__(self) -> None:
        self._begun: tuple[tuple[int, ...], Level, float] | None = None

    def __call__(
        self,
        cell: Cell,
        networks: Sequence[Network],
        trainer: Trainer,
        tick: Callable[[], None],
        resume: Checkpoints | None = None,
    ) -> list[Trained]:
        """Run a cell, as `run_cell` does."""
        if cell.method != IMP:
            return run_cell(cell, networks, trainer, tick, resume)
        variables, keys = together(networks)
        pruning = IterativePruning(trainer, keys)
        dense, spent = self._dense(pruning, variables, tuple(net.seed for net in networks))
        start, last = time.perf_counter(), dense
        for level in pruning.levels(dense, cell.rho, cell.rounds or 1):
            last = level
            tick()
        seconds = (time.perf_counter() - start + spent) / len(networks)
        lost = ~np.asarray(all_finite(last.trained["params"]))
        return [_seed(last, i, bool(lost[i]), seconds) for i in range(len(networks))]

    def _dense(
        self, pruning: IterativePruning, variables: Any, seeds: tuple[int, ...]
    ) -> tuple[Level, float]:
        if self._begun is None or self._begun[0] != seeds:
            start = time.perf_counter()
            level = jax.block_until_ready(pruning.dense(variables))
            self._begun = seeds, level, time.perf_counter() - start
        return self._begun[1:]


def _seed(level: Level, index: int, lost: bool, seconds: float) -> Trained:
    """Return one seed of a level; its pruning time is 0, as training finds the masks."""
    masks = jax.tree.map(lambda leaf: leaf[index], level.masks)
    pair = level.history.top1, level.history.top5
    top1, top5 = (np.asarray(x[:, index], np.float64) for x in pair)
    return Trained(masks, top1, top5, lost, 0.0, seconds)


def watch(plan: Plan, console: Console, _: Any) -> None:
    """Train each seed of a plan, dense from Xavier's initialisation, and record its layers.

    Stores one row a seed: sizes, and the mean squared magnitude of every layer before the first
    epoch and after each.

    Args:
      plan: the plan; only its first cell is run.
      console: where a line is printed for each seed.
    """
    done = {row["config"] for row in store.read(plan.path)}
    cell = plan.cells[0]
    for network in plan.networks:
        key = plan.key(cell, network.seed)
        if key not in done:
            found = {"config": key, **plan.case.settings(cell, network.seed)} | _watched(
                network, plan.trainer
            )
            store.add(plan.path, [found], plan.asked)
            console.print(f"xavier, seed {network.seed}: {100 * found['top1_final']:.1f}")


def _watched(network: Network, trainer: Trainer) -> Row:
    params = reinitialise(network.keys.init, network.params, partial(_xavier, network.params))
    variables = jax.tree.map(lambda leaf: leaf[None], {**network.variables, "params": params})
    ones = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), variables["params"])
    start, seen, top1 = time.perf_counter(), [_mean_squares(params)], []
    for trained, scores in trainer.epochs(variables, ones, network.keys.order[None]):
        seen.append(_mean_squares(jax.tree.map(lambda leaf: leaf[0], trained["params"])))
        top1.append(round(float(scores.top1[0]), 6))
    rows = report(params, jax.tree.map(lambda leaf: leaf[0], ones)).rows
    return {
        "size_per_layer": {row.layer: row.kept for row in rows},
        "mean_square_per_layer": [[one[row.layer] for row in rows] for one in seen],
        "top1_best": max(top1),
        "top1_final": top1[-1],
        "train_seconds": round(time.perf_counter() - start, 4),
    }


def _xavier(params: Any, key: Any) -> Any:
    """Draw matrices and kernels from Xavier's normal distribution; other leaves stay."""
    leaves, treedef = jax.tree.flatten(params)
    draw = nn.initializers.xavier_normal()
    keys = jax.random.split(key, len(leaves))
    pairs = zip(keys, leaves, strict=True)
    return treedef.unflatten([draw(k, x.shape) if x.ndim > 1 else x for k, x in pairs])


def _mean_squares(params: Any) -> dict[str, float]:
    flat: dict[str, Any] = traverse_util.flatten_dict(params, sep="/")
    chosen = {path: leaf for path, leaf in flat.items() if is_prunable(path, leaf)}
    return {path: float(f"{jnp.mean(jnp.square(leaf)):.5g}") for path, leaf in chosen.items()}
