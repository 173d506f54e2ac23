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
from pathlib import Path
from typing import Any

import jax
import tyro
from rich.console import Console

from experiments.common import plan as plans
from experiments.common import rows as store
from experiments.common.command import ready, terminal
from experiments.common.config import Config
from experiments.common.describe import brief
from experiments.common.machine import provenance
from experiments.common.plan import Plan
from experiments.common.plot import plot
from experiments.common.rows import Row
from experiments.common.sweep import DENSE, Cell
from experiments.common.table import show
from synflow_jax import max_compression


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
    plan = plans.prepare(config.case, lambda params: _cells(config, params), _path(config))
    store.add(plan.path, [])  # now rather than after hours: can it be read, written?
    return dataclasses.replace(plan, asked=provenance(config, jax.default_backend()))


def _path(config: Config) -> Path:
    return config.folder / "rows.json"


def _cells(config: Config, params: Any) -> list[Cell]:
    methods = list(dict.fromkeys(config.methods))
    ratios = grid(config, params)
    return [Cell(DENSE, 1.0), *(Cell(method, rho) for rho in ratios for method in methods)]


def grid(config: Config, params: Any) -> list[float]:
    """List the compression ratios in rising order, one a key."""
    if config.rho:
        by_key = {store.log10_key(rho): rho for rho in reversed(config.rho)}
        return [by_key[key] for key in sorted(by_key)]
    steps = int(2 * math.log10(max_compression(params)))
    return [10 ** (step / 2) for step in range(1, steps + 1)]


def run(plan: Plan, console: Console) -> list[Row]:
    """Do what is missing of a comparison, and return its rows: see `plan.run`."""
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
    main(tyro.cli(Config, prog="python -m experiments.compare", description=__doc__))
