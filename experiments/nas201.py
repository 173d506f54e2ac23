r"""SynFlow's score as a proxy for architectures: 1,000 random cells of NAS-Bench-201.

Each network is scored at its initialisation, without training or data, by `flow_score`: log10 of Σ
|θ ⊙ ∂R/∂θ| over its kernels (Abdelfattah et al. 2021), with norms left out ("synflow" of
zero-cost-nas and NASLib) and with BatchNorm on the statistics of the one example of ones
("synflow_bn"). The cell is an array argument, so that all networks of a form share one compiled
program.

    python -m experiments.nas201                     # 1,000 cells, both forms
    python -m experiments.nas201 --draw              # from the rows that are stored
    python -m experiments.nas201 --smoke             # test run, seconds

The networks are the benchmark's, for images of 32×32: five cells a stage at 16, 32 and 64 channels,
10 classes, PyTorch's default initialisation, one seed; networks share the kernels that they have in
common. A known criticism of such scores is that they follow the size of a network (Ning et al.
2021), so ranks are compared with those by weights and multiply-adds. The benchmark's accuracies are
not compared, because they are not at hand.

Writes nas201.json, 50 cells a row (their numbers, see models/nas201.py; null is a score of
−inf; seconds of each call after the first, which compiles), and nas201.png.
"""

import dataclasses
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from scipy.stats import rankdata

from experiments.cells.figure import Figure, run
from experiments.draw.nas201 import FORMS, Costs, draw, finite, joined
from experiments.models import nas201
from experiments.records.console import run_command
from experiments.records.rows import RESULTS, Row
from synflow_jax import __version__
from synflow_jax.measure import flow_score

RECIPE = 1  # raise it when a change to the experiment changes rows
BATCH = 50
# BatchNorm's statistics of nearly constant images are differences that float32 cannot resolve.
RUNS = {"synflow": (nas201.no_norm, "float32"), "synflow_bn": (nas201.batch_norm, "float64")}


@dataclasses.dataclass(frozen=True)
class Config:
    """Score random cells of NAS-Bench-201."""

    cells: int = 1000
    """How many cells, all different."""
    seed: int = 0
    """Seed of the choice of cells and of the initialisation."""
    smoke: bool = False
    """Test run of seconds: ten cells of a network of one stage on small images."""
    draw: bool = False
    """Draw the rows that are stored, and make none."""
    out: Path | None = None
    """Folder of the results; by default experiments/results, or results/smoke for a smoke run."""

    def __post_init__(self) -> None:
        if not 1 <= self.cells <= nas201.SPACE:
            raise ValueError(f"cells must be from 1 to {nas201.SPACE}, got {self.cells}")
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, got {self.seed}")

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return self.out or (Path("results", "smoke") if self.smoke else RESULTS)

    @property
    def side(self) -> int:
        """Height and width of an image."""
        return 8 if self.smoke else 32

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the stages."""
        return (4,) if self.smoke else nas201.CHANNELS

    def chosen(self) -> list[int]:
        """Draw the numbers of the cells."""
        order = np.random.default_rng(self.seed).permutation(nas201.SPACE)
        if self.smoke:
            return [0, *order[:9].tolist()]  # 0 has no operation at all
        return order[: self.cells].tolist()

    def params(self) -> nas201.Params:
        """Draw the params of all networks, in float32."""
        cells = 1 if self.smoke else nas201.CELLS
        return nas201.initialise(jax.random.key(self.seed), 10, self.channels, cells)

    def settings(self, form: str) -> list[Row]:
        """Return everything that decides the rows of a form."""
        about = {"version": __version__, "recipe": RECIPE, "form": form, "seed": self.seed}
        about |= {"channels": list(self.channels), "side": self.side, "dtype": RUNS[form][1]}
        count = len(self.chosen())
        starts = range(0, count, BATCH)
        return [{**about, "from": i, "to": min(i + BATCH, count)} for i in starts]


def make(config: Config, rows: list[Row]) -> Iterator[Row]:
    """Score the cells of each row one by one, with one compiled program."""
    norm, dtype = RUNS[rows[0]["form"]]
    drawn, shape = config.params(), (config.side, config.side, 3)
    for index, row in enumerate(rows):
        cells = config.chosen()[row["from"] : row["to"]]
        with jax.enable_x64(dtype == "float64"):
            params = jax.tree.map(lambda leaf: leaf.astype(dtype), drawn)
            first = None if index else _timed(cells[0], params, norm, shape)[1]
            found = [_timed(number, params, norm, shape) for number in cells]
        yield {
            "cells": cells,
            "first_call": first and round(first, 2),
            "score": [round(value, 5) if math.isfinite(value) else None for value, _ in found],
            "seconds": [round(seconds, 4) for _, seconds in found],
        }


def _timed(
    number: int, params: nas201.Params, norm: nas201.Norm, shape: Any
) -> tuple[float, float]:
    """Score one cell's network; return the score and the seconds."""
    cell = jnp.array(nas201.cell_of(number), jnp.int32)
    start = time.perf_counter()
    value = float(flow_score(params, Partial(nas201.network, cell, norm=norm), shape))
    return value, time.perf_counter() - start


def ranks(rows: list[Row], costs: Costs) -> dict[str, float]:
    """Correlate the ranks of cells by both scores and by weights (Spearman).

    In this space ranks by weights and by multiply-adds are the same.
    """
    plain, normed = (finite(joined(rows, form)) for form in FORMS)
    cells = [number for number in plain if number in normed]
    columns = ([plain[n] for n in cells], [normed[n] for n in cells], [costs[n][0] for n in cells])
    found = np.corrcoef([rankdata(np.array(column, float)) for column in columns])
    named = {"synflow and weights": found[0, 2], "synflow_bn and weights": found[1, 2]}
    return {name: float(value) for name, value in (named | {"the two": found[0, 1]}).items()}


def costs_of(config: Config, rows: list[Row]) -> Costs:
    """Count weights and multiply-adds of every cell's network."""
    shapes = jax.eval_shape(config.params)
    numbers = {number for row in rows for number in row["cells"]}
    return {n: nas201.cost(nas201.cell_of(n), shapes, config.side) for n in numbers}


def claims(config: Config, rows: list[Row]) -> Iterator[tuple[str, bool]]:
    """Check the claims, with the correlations of the ranks."""
    for form in (form for form in FORMS if joined(rows, form)):
        found = joined(rows, form)
        dead = [number for number, score in found.items() if score is None]
        cut = [number for number in found if not nas201.connects(nas201.cell_of(number))]
        text = f"{form}: of {len(found)} cells those without a path score −inf: {len(dead)}"
        yield text, sorted(dead) == sorted(cut)
    found = ranks(rows, costs_of(config, rows))
    said = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
    strong = found["synflow and weights"] > 0.5
    yield f"ranks by synflow follow the number of weights; Spearman: {said}", strong


def main(config: Config) -> None:
    """Score the missing cells, draw, and check the claims."""
    figure = Figure(
        "nas201",
        [config.settings(form) for form in FORMS],
        lambda rows: make(config, rows),
        lambda rows, path: draw(rows, costs_of(config, rows), path),
        lambda rows: claims(config, rows),
    )
    run(figure, config)


if __name__ == "__main__":
    run_command(main, Config, "nas201", __doc__)
