r"""Which pruning at initialisation wins, and which one collapses where?

Prunes a network before training by SynFlow, SNIP, GraSP, magnitude and at random, and by two
controls (SynFlow's masks shuffled inside layers, random weights at ERK densities), over a range of
compression ratios. Trains every pruned network under one budget on real data. Shows accuracy, layer
collapse, flow and time.

    python -m experiments.compare           # scikit-learn's digits: about 2 minutes on 2 CPU cores
    python -m experiments.compare --dataset cifar10 --model vgg16 --epochs 160 --batch-size 128 \
        --learning-rate 0.1 --clip None     # near the paper's Figure 6, for an accelerator
    python -m experiments.compare --rho 10 100 --seeds 1 --epochs 1 --methods synflow magnitude

Differences from the paper: the learning rate follows a cosine, not steps; accuracy is that of the
last epoch, with the best epoch's beside it; SNIP and GraSP score images that are not augmented.

Writes rows.json (one row for each method, ρ and seed), table.txt and figure.png. Finished cells are
stored at once: a stopped run continues when it is started again, and several runs may share one
folder.
"""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import jax
from rich.console import Console

from experiments.cells import plan as plans
from experiments.cells.cell import Cell
from experiments.cells.describe import brief
from experiments.cells.methods import CONTROLS, PAPERS, MethodName
from experiments.cells.plan import Case, Plan
from experiments.data.dataset import DatasetName
from experiments.draw.comparison import plot
from experiments.draw.table import show
from experiments.models import ModelName
from experiments.records import rows as store
from experiments.records.checked import Checked, Rule, some_of
from experiments.records.console import ready, run_command, terminal
from experiments.records.groups import DENSE
from experiments.records.machine import provenance
from experiments.records.rows import Row
from experiments.training.optimiser import Budget
from synflow_jax.measure import max_compression


@dataclasses.dataclass(frozen=True)
class Config(Checked):
    """Compare pruning methods at initialisation on real data."""

    dataset: DatasetName = "digits"
    """Data set; all but digits are prepared TFDS data sets."""
    model: ModelName = "conv"
    """Network; vgg and resnet are those of CIFAR."""
    methods: tuple[MethodName, ...] = PAPERS + CONTROLS
    """Methods to compare, beside the dense network."""
    rho: tuple[float, ...] = ()
    """Compression ratios; none means half decades from 10^0.5 up to the maximal compression."""
    seeds: int = 3
    """How many initialisations."""
    epochs: int = 3
    """Epochs of training for every network."""
    batch_size: int = 32
    """Training examples a step; a last batch that is not full is dropped."""
    learning_rate: float = 0.05
    """Learning rate at the start of the cosine schedule."""
    weight_decay: float = 1e-4
    """L2 decay."""
    clip: float | None = 1.0
    """Norm to which gradients are clipped; None, as in the paper, does not clip."""
    examples: int | None = None
    """Train on this many examples only, the first ones."""
    seeds_at_once: int | None = None
    """Seeds trained under one vmap; by default one on a CPU and all elsewhere."""
    data_dir: Path | None = None
    """Where TFDS keeps its data; by default TFDS_DATA_DIR or ~/tensorflow_datasets."""
    out: Path | None = None
    """Folder of the results; by default results/compare/DATASET-MODEL."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for rho in self.rho:
            if not 1 <= rho < math.inf:
                hint = f"; the density {rho:g} is rho {1 / rho:g}" if 0 < rho < 1 else ""
                raise ValueError(f"rho must be finite and at least 1, got {rho}{hint}")

    def _rules(self) -> Iterator[Rule]:
        for name, kind in (("dataset", DatasetName), ("model", ModelName)):
            yield name, getattr(self, name) in get_args(kind), f"one of {get_args(kind)}"
        yield some_of("methods", self.methods, get_args(MethodName))
        for name in ("seeds", "epochs", "batch_size"):
            yield name, getattr(self, name) >= 1, "at least 1"
        for name in ("examples", "seeds_at_once"):
            value = getattr(self, name)
            yield name, value is None or value >= 1, "None or at least 1"
        yield "learning_rate", 0 < self.learning_rate < math.inf, "finite and above 0"
        yield "weight_decay", 0 <= self.weight_decay < math.inf, "finite and at least 0"
        yield "clip", self.clip is None or self.clip > 0, "None or above 0"

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return self.out or Path("results", "compare", f"{self.dataset}-{self.model}")

    @property
    def case(self) -> Case:
        """The network, the data set and the budget."""
        rates = self.learning_rate, self.weight_decay, self.clip
        return Case(
            self.model,
            self.dataset,
            Budget(self.epochs, self.batch_size, *rates),
            self.seeds,
            self.examples,
            seeds_at_once=self.seeds_at_once,
            data_dir=self.data_dir,
        )


def prepare(config: Config) -> Plan:
    """Load the data, build the networks and make the folder of a comparison.

    Args:
      config: the settings.

    Returns:
      The plan.

    Raises:
      ValueError: data, network and settings do not fit together, or the folder has malformed
        rows.
      OSError: the data set is not prepared, or the folder cannot be written.
    """
    plan = plans.prepare(config.case, lambda params: _cells(config, params), _path(config))
    store.add(plan.path, [])  # fail before the work if it cannot be read or written
    store.check_cells(plan.path)
    return dataclasses.replace(plan, asked=provenance(config, jax.default_backend()))


def _path(config: Config) -> Path:
    return config.folder / "rows.json"


def _cells(config: Config, params: Any) -> list[Cell]:
    methods = list(dict.fromkeys(config.methods))
    ratios = grid(config, params)
    return [Cell(DENSE, 1.0), *(Cell(method, rho) for rho in ratios for method in methods)]


def grid(config: Config, params: Any) -> list[float]:
    """List the compression ratios, ascending, without duplicates."""
    if config.rho:
        by_key = {store.log10_key(rho): rho for rho in reversed(config.rho)}
        return [by_key[key] for key in sorted(by_key)]
    steps = int(2 * math.log10(max_compression(params)))
    return [10 ** (step / 2) for step in range(1, steps + 1)]


def run(plan: Plan, console: Console) -> list[Row]:
    """Run the missing cells of a comparison, and return its rows: see `plan.run`."""
    return plans.run(plan, console, brief)


def main(config: Config) -> None:
    """Run a comparison, print its tables and write its files."""
    plan, console = ready(prepare, config), terminal()
    rows = run(plan, console)
    show(rows, config.folder / "table.txt", console)
    title = f"{config.model} on {config.dataset}, {config.seeds} seeds, {config.epochs} epochs"
    plot(rows, title, config.folder / "figure.png")
    console.print(f"Rows, tables and figure are in {config.folder}/")


if __name__ == "__main__":
    run_command(main, Config, "compare", __doc__)
