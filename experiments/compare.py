r"""Which pruning at initialisation wins, and which one collapses where?

Prunes a network before training by SynFlow, SNIP, GraSP, magnitude and at random, and by two
controls (SynFlow's masks shuffled inside layers, random weights at ERK densities), over a range of
compression ratios; trains every pruned network under one budget on real data; shows accuracy,
layer collapse, flow and time.

    python -m experiments.compare           # scikit-learn's digits: about 2 minutes on 2 CPU cores
    python -m experiments.compare --dataset cifar10 --model vgg16 --epochs 160 --batch-size 128 \
        --learning-rate 0.1 --clip None     # near the paper's Figure 6, for an accelerator
    python -m experiments.compare --rho 10 100 --seeds 1 --epochs 1 --methods synflow magnitude

It differs from the paper in this: the learning rate falls along a cosine, not in steps; accuracy is
the last epoch's, the best one's beside it; SNIP and GraSP score images that are not augmented.

Writes rows.json (one row a method, ρ and seed), table.txt and figure.png. Finished cells are
stored at once: a run that was stopped goes on where it was when it is started again, and several
runs may share one folder.
"""

import dataclasses
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from experiments.common import rows as store
from experiments.common.command import ready, terminal
from experiments.common.config import Config
from experiments.common.data import load
from experiments.common.machine import provenance
from experiments.common.methods import SCORED_ON_DATA, Network
from experiments.common.models import MODELS
from experiments.common.plot import plot
from experiments.common.rows import Row
from experiments.common.sweep import DENSE, Cell, run_cell
from experiments.common.table import show
from experiments.common.train import Trainer
from synflow_jax import max_compression


@dataclasses.dataclass(frozen=True)
class Plan:
    """A comparison that is ready to run: what it needs is loaded and checked."""

    config: Config
    networks: Sequence[Network]
    trainer: Trainer
    cells: Sequence[Cell]

    @property
    def path(self) -> Path:
        """The file of rows."""
        return self.config.folder / "rows.json"

    def key(self, cell: Cell, seed: int) -> str:
        """Fingerprint one seed of a cell: its settings and the shapes of the network."""
        shapes = jax.tree.map(lambda leaf: list(leaf.shape), self.networks[0].params)
        return store.fingerprint({**self.config.settings(cell, seed), "layers": shapes})


def prepare(config: Config) -> Plan:
    """Load the data, build the networks and make the folder of a comparison.

    Args:
      config: what to compare.

    Returns:
      The plan.

    Raises:
      ValueError: data, network and configuration do not fit one another, or the folder has
        malformed rows.
      OSError: the data set is not prepared, or the folder cannot be written.
    """
    dataset = load(config.dataset, config.data_dir, config.examples)
    model = MODELS[config.model](dataset.classes)
    networks = [Network(model, dataset, seed) for seed in range(config.seeds)]
    trainer = Trainer(model, dataset, config.budget, config.seeds_at_once)
    if SCORED_ON_DATA & set(config.methods):
        for network in networks:
            network.sample()
    ratios = grid(config, networks[0].params)  # an image too small for the network is refused here
    methods = list(dict.fromkeys(config.methods))
    cells = [Cell(DENSE, 1.0), *(Cell(method, rho) for rho in ratios for method in methods)]
    plan = Plan(config, networks, trainer, cells)
    asked = provenance(config, jax.default_backend())
    store.add(plan.path, [], asked)  # now rather than after hours: can it be read, written?
    return plan


def grid(config: Config, params: Any) -> list[float]:
    """List the compression ratios in rising order, one a key."""
    if config.rho:
        by_key = {store.log10_key(rho): rho for rho in reversed(config.rho)}
        return [by_key[key] for key in sorted(by_key)]
    steps = int(2 * math.log10(max_compression(params)))
    return [10 ** (step / 2) for step in range(1, steps + 1)]


def run(plan: Plan, console: Console) -> list[Row]:
    """Do what is missing of a comparison, storing every cell as it is done.

    Args:
      plan: what to compare.
      console: where progress is shown; where it is no terminal, one line a cell.

    Returns:
      The rows of this comparison, those of earlier runs included.
    """
    with _progress(console) as progress:
        task = progress.add_task("cells", total=len(plan.cells))
        for cell in plan.cells:
            progress.update(task, description=f"{cell.method} at ρ = {cell.rho:.4g}")
            new = _run_missing(plan, cell, progress)
            if new and not console.is_terminal:
                console.print(_line(cell, new), highlight=False, soft_wrap=True)
            progress.advance(task)
    return store.of_configs(
        plan.path, [plan.key(cell, net.seed) for cell in plan.cells for net in plan.networks]
    )


def _progress(console: Console) -> Progress:
    columns = TextColumn("{task.description:<32}"), BarColumn(), MofNCompleteColumn()
    disable = not console.is_terminal
    return Progress(*columns, TimeElapsedColumn(), console=console, disable=disable)


def _run_missing(plan: Plan, cell: Cell, progress: Progress) -> list[Row]:
    """Run the seeds of a cell that have no row yet, and store and return theirs."""
    done = {row["config"] for row in store.read(plan.path)}
    keys = {network.seed: plan.key(cell, network.seed) for network in plan.networks}
    missing = [network for network in plan.networks if keys[network.seed] not in done]
    if not missing:
        return []
    task = progress.add_task("  epochs", total=plan.config.epochs)
    results = run_cell(cell, missing, plan.trainer, partial(progress.advance, task))
    progress.remove_task(task)
    new = [
        {"config": keys[net.seed], **plan.config.settings(cell, net.seed), "rho": cell.rho} | result
        for net, result in zip(missing, results, strict=True)
    ]
    store.add(plan.path, new)
    return new


def _line(cell: Cell, rows: Sequence[Row]) -> str:
    accuracies = " ".join(f"{100 * row['accuracy']:.1f}" for row in rows)
    return f"{cell.method:<16} ρ = {cell.rho:<9.4g} accuracy {accuracies}"


def main(config: Config) -> None:
    """Run a comparison, print its tables and write its files."""
    plan, console = ready(prepare, config), terminal()
    rows = run(plan, console)
    show(rows, config.folder / "table.txt", console)
    title = f"{config.model} on {config.dataset}, {config.seeds} seeds, {config.epochs} epochs"
    plot(rows, title, config.folder / "figure.png")
    console.print(f"Rows, tables and figure are in {config.folder}/")


if __name__ == "__main__":
    main(tyro.cli(Config, prog="python -m experiments.compare", description=__doc__))
