"""Which pruning at initialisation wins, and which one collapses where?

Prunes a network before training by SynFlow, SNIP, GraSP, magnitude and at random, and by two
controls (SynFlow's masks shuffled inside layers, random weights at ERK densities), over a range of
compression ratios; trains every pruned network under one budget on real data; shows accuracy,
layer collapse, flow and time.

    python -m experiments.compare           # scikit-learn's digits: about 2 minutes on 2 CPU cores
    python -m experiments.compare --dataset cifar10 --model vgg16 --epochs 160 --batch-size 128 \
        --learning-rate 0.1 --clip None     # the paper's Figure 6, for an accelerator
    python -m experiments.compare --rho 10 100 --seeds 1 --epochs 1 --methods synflow magnitude

Writes rows.jsonl (one row a method, ρ and seed), table.txt and figure.png. Finished cells are
stored at once: a run that was stopped goes on where it was when it is started again.
"""

import dataclasses
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from experiments.common import rows as store
from experiments.common.data import DatasetName, load
from experiments.common.methods import MethodName, Network
from experiments.common.models import MODELS, ModelName
from experiments.common.plot import plot
from experiments.common.rows import Row
from experiments.common.sweep import DENSE, Cell, run_cell
from experiments.common.table import show
from experiments.common.train import Budget, Trainer
from synflow_jax import max_compression


@dataclasses.dataclass(frozen=True)
class Config:
    """Compare pruning methods at initialisation on real data."""

    dataset: DatasetName = "digits"
    """Data set; all but digits are prepared TFDS data sets."""
    model: ModelName = "conv"
    """Network; vgg and resnet are those of CIFAR."""
    methods: tuple[MethodName, ...] = get_args(MethodName)
    """Methods to compare, beside the dense network."""
    rho: tuple[float, ...] = ()
    """Compression ratios; none means half decades from 10^0.5 up to the maximal compression."""
    seeds: int = 3
    """How many initialisations."""
    epochs: int = 3
    """Epochs of training for every network."""
    batch_size: int = 32
    """Training examples a step."""
    learning_rate: float = 0.05
    """Learning rate at the start of the cosine schedule."""
    weight_decay: float = 1e-4
    """L2 decay."""
    clip: float | None = 1.0
    """Norm to which longer gradients are cut; None, as in the paper, does not cut."""
    examples: int | None = None
    """Train on the first so many examples only."""
    seeds_at_once: int | None = None
    """Seeds trained under one vmap; by default one on a CPU and all elsewhere."""
    data_dir: Path | None = None
    """Where TFDS keeps its data; by default TFDS_DATA_DIR or ~/tensorflow_datasets."""
    out: Path | None = None
    """Folder of the results; by default results/compare/DATASET-MODEL."""

    def __post_init__(self) -> None:
        for name in ("seeds", "epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return self.out or Path("results", "compare", f"{self.dataset}-{self.model}")

    @property
    def budget(self) -> Budget:
        """What every network gets."""
        rates = self.learning_rate, self.weight_decay, self.clip
        return Budget(self.epochs, self.batch_size, *rates)

    def settings(self, cell: Cell, seed: int) -> Row:
        """All that decides the result of one seed of a cell."""
        return {
            "dataset": self.dataset,
            "model": self.model,
            "method": cell.method,
            "log10_rho": cell.log10_rho,
            "rho": cell.rho,
            "seed": seed,
            "examples": self.examples,
            **dataclasses.asdict(self.budget),
        }


def grid(config: Config, params: Any) -> list[float]:
    """List the compression ratios in rising order."""
    if config.rho:
        return sorted(set(config.rho))
    steps = int(2 * np.log10(max_compression(params)))
    return [10 ** (step / 2) for step in range(1, steps + 1)]


def run(config: Config, console: Console) -> list[Row]:
    """Do what is missing of a comparison, storing every cell as it is done.

    Args:
      config: what to compare.
      console: where progress is shown.

    Returns:
      The rows of this comparison, those of earlier runs included.
    """
    dataset = load(config.dataset, config.data_dir, config.examples)
    model = MODELS[config.model](dataset.classes)
    networks = [Network(model, dataset, seed) for seed in range(config.seeds)]
    trainer = Trainer(model, dataset, config.budget, config.seeds_at_once)
    ratios = grid(config, networks[0].params)
    cells = [Cell(DENSE, 1.0), *(Cell(m, rho) for rho in ratios for m in config.methods)]
    path = config.folder / "rows.jsonl"
    with _progress(console) as progress:
        task = progress.add_task("cells", total=len(cells))
        for cell in cells:
            progress.update(task, description=f"{cell.method} at ρ = {cell.rho:.4g}")
            _run_missing(config, cell, networks, trainer, path, progress)
            progress.advance(task)
    return _wanted(config, cells, store.read(path))


def _progress(console: Console) -> Progress:
    columns = TextColumn("{task.description:<32}"), BarColumn(), MofNCompleteColumn()
    return Progress(*columns, TimeElapsedColumn(), console=console)


def _run_missing(
    config: Config,
    cell: Cell,
    networks: Sequence[Network],
    trainer: Trainer,
    path: Path,
    progress: Progress,
) -> None:
    stored = store.read(path)
    done = {row["config"] for row in stored}
    keys = [store.fingerprint(config.settings(cell, network.seed)) for network in networks]
    missing = [(net, key) for net, key in zip(networks, keys, strict=True) if key not in done]
    if not missing:
        return
    task = progress.add_task("  epochs", total=config.epochs)
    results = run_cell(cell, [net for net, _ in missing], trainer, partial(progress.advance, task))
    progress.remove_task(task)
    new = [
        {"config": key, **config.settings(cell, net.seed), **result}
        for (net, key), result in zip(missing, results, strict=True)
    ]
    store.write(path, stored + new)


def _wanted(config: Config, cells: Sequence[Cell], stored: list[Row]) -> list[Row]:
    by_key = {row["config"]: row for row in stored}
    settings = [config.settings(cell, seed) for cell in cells for seed in range(config.seeds)]
    return [by_key[store.fingerprint(one)] for one in settings]


def main(config: Config) -> None:
    """Run a comparison, print its tables and write its files."""
    console = Console(width=None if sys.stdout.isatty() else 100)
    rows = run(config, console)
    show(rows, config.folder / "table.txt", console)
    title = f"{config.model} on {config.dataset}, {config.seeds} seeds, {config.epochs} epochs"
    plot(rows, title, config.folder / "figure.png")
    console.print(f"Rows, tables and figure are in {config.folder}/")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
