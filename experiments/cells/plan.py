"""Plans: a network on a data set under a budget, the cells to run on it, and their rows.

`compare` and the figures with training use it. Finished cells are stored at once, so that a stopped
run continues where it was, and several runs may share one file.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from experiments.cells.cell import Cell, Trained, run_cell
from experiments.cells.methods import SCORED_ON_DATA, OutOfReachError
from experiments.cells.network import Network
from experiments.data.dataset import DatasetName, load
from experiments.models import MODELS, ModelName
from experiments.records import rows as store
from experiments.records.rows import Row
from experiments.training.checkpoints import Checkpoints
from experiments.training.optimiser import Budget
from experiments.training.trainer import Trainer
from synflow_jax import __version__

# Raise it when a change to the experiments (data, initialisation, order of examples, training,
# scoring) changes rows: they are then made anew.
RECIPE = 1
LONG = 30  # epochs
FIRST_BUDGET = ("epochs", "batch_size", "learning_rate", "weight_decay", "clip")
DECIDES = {field.name for field in dataclasses.fields(Budget)} | {
    *("version", "recipe", "dataset", "model", "method", "log10_rho", "seed", "examples"),
    *("augmented", "rounds"),
}
Describe = Callable[[Network, Trained], Row]


@dataclasses.dataclass(frozen=True)
class Case:
    """One network on one data set under one budget."""

    model: ModelName
    dataset: DatasetName
    budget: Budget
    seeds: int = 3
    examples: int | None = None
    augmented: bool = False  # whether SNIP and GraSP score augmented images
    seeds_at_once: int | None = None
    data_dir: Path | None = None

    def settings(self, cell: Cell, seed: int) -> Row:
        """Return everything that decides one seed of a cell, except the shapes of the network."""
        scoring = {"augmented": True} if self.augmented and cell.method in SCORED_ON_DATA else {}
        rounds = {} if cell.rounds is None else {"rounds": cell.rounds}
        return {
            "version": __version__,
            "recipe": RECIPE,
            "dataset": self.dataset,
            "model": self.model,
            "method": cell.method,
            "log10_rho": cell.log10_rho,
            "seed": seed,
            "examples": self.examples,
            **_told(self.budget),
            **scoring,
            **rounds,
        }


def _told(budget: Budget) -> Row:
    """Return the fields of a budget; those newer than the first rows only if not default."""
    fields = dataclasses.fields(budget)
    pairs = [(field.name, getattr(budget, field.name), field.default) for field in fields]
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value, default in pairs
        if name in FIRST_BUDGET or value != default
    }


def decided(row: Row) -> Row:
    """Return the settings that made a row: the fields that `Case.settings` wrote."""
    return {name: row[name] for name in DECIDES & row.keys()}


@dataclasses.dataclass(frozen=True)
class Plan:
    """A case that is ready to run: data loaded, networks built, settings checked."""

    case: Case
    networks: Sequence[Network]
    trainer: Trainer
    cells: Sequence[Cell]
    path: Path
    checkpoints: Path | None = None  # folder of the checkpoints of long trainings
    work: Callable[..., list[Trained]] | None = None  # in place of `run_cell`
    asked: Row | None = None  # written at the head of the file with the first new row

    def key(self, cell: Cell, seed: int) -> str:
        """Fingerprint one seed of a cell: its settings and the shapes of the network."""
        shapes = jax.tree.map(lambda leaf: list(leaf.shape), self.networks[0].params)
        return store.fingerprint({**self.case.settings(cell, seed), "layers": shapes})

    def resume(self, cell: Cell, seeds: Sequence[int]) -> Checkpoints | None:
        """Return the checkpoints of the training of some seeds; None for a short training."""
        if self.checkpoints is None or self.case.budget.epochs < LONG:
            return None
        keys = {"keys": [self.key(cell, seed) for seed in seeds]}
        return Checkpoints(self.checkpoints / store.fingerprint(keys), keys)


def prepare(
    case: Case, cells: Sequence[Cell] | Callable[[Any], Sequence[Cell]], path: Path
) -> Plan:
    """Load the data and build the networks of a case.

    Args:
      case: the network, the data set and the budget.
      cells: the cells to run, or a function from the params to them.
      path: the file of rows.

    Returns:
      The plan.

    Raises:
      ValueError: data, network and budget do not fit together.
      OSError: the data set is not prepared.
    """
    dataset = load(case.dataset, case.data_dir, case.examples)
    model = MODELS[case.model](dataset.classes)
    seeds = range(case.seeds)
    networks = [Network(model, dataset, seed, augmented=case.augmented) for seed in seeds]
    trainer = Trainer(model, dataset, case.budget, case.seeds_at_once)
    params = networks[0].params  # an image too small for the network is refused here
    wanted = cells(params) if callable(cells) else cells
    if any(cell.method in SCORED_ON_DATA for cell in wanted):
        for network in networks:
            network.sample()
    return Plan(case, networks, trainer, wanted, path)


def run(plan: Plan, console: Console, describe: Describe) -> list[Row]:
    """Run the cells that have no rows yet, and store each when it is done.

    Args:
      plan: what to run.
      console: where progress is shown; one line a cell if it is not a terminal.
      describe: function that returns the columns of a row.

    Returns:
      The rows of this plan, including those of earlier runs; a cell that is out of reach has none.
    """
    with _progress(console) as progress:
        task = progress.add_task("cells", total=len(plan.cells))
        for cell in plan.cells:
            progress.update(task, description=f"{cell.method} at ρ = {cell.rho:.4g}")
            try:
                new = _run_missing(plan, cell, progress, describe)
            except OutOfReachError as error:
                console.print(f"{cell.method} at ρ = {cell.rho:.4g} is left out: {error}")
                new = []
            if new and not console.is_terminal:
                console.print(_line(cell, new), highlight=False, soft_wrap=True)
            progress.advance(task)
    done = {row["config"] for row in store.read(plan.path)}
    keys = [plan.key(cell, net.seed) for cell in plan.cells for net in plan.networks]
    return store.of_configs(plan.path, [key for key in keys if key in done])


def _progress(console: Console) -> Progress:
    columns = TextColumn("{task.description:<32}"), BarColumn(), MofNCompleteColumn()
    disable = not console.is_terminal
    return Progress(*columns, TimeElapsedColumn(), console=console, disable=disable)


def _run_missing(plan: Plan, cell: Cell, progress: Progress, describe: Describe) -> list[Row]:
    """Run the seeds of a cell that have no row yet; store and return their rows."""
    done = {row["config"] for row in store.read(plan.path)}
    keys = {network.seed: plan.key(cell, network.seed) for network in plan.networks}
    missing = [network for network in plan.networks if keys[network.seed] not in done]
    if not missing:
        return []
    task = progress.add_task("  epochs", total=plan.case.budget.epochs)
    resume = plan.resume(cell, [network.seed for network in missing])
    work, tick = plan.work or run_cell, partial(progress.advance, task)
    results = work(cell, missing, plan.trainer, tick, resume)
    progress.remove_task(task)
    new = [
        {"config": keys[net.seed], **plan.case.settings(cell, net.seed), "rho": cell.rho}
        | describe(net, result)
        for net, result in zip(missing, results, strict=True)
    ]
    store.add(plan.path, new, plan.asked)
    if resume is not None:
        resume.clear()
    return new


def _line(cell: Cell, rows: Sequence[Row]) -> str:
    values = [row.get("accuracy", row.get("top1_best", math.nan)) for row in rows]
    accuracies = " ".join(f"{100 * value:.1f}" for value in values)
    return f"{cell.method:<16} ρ = {cell.rho:<9.4g} accuracy {accuracies}"
