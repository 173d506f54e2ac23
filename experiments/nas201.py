r"""What does SynFlow's score say about architectures? 1,000 random cells of NAS-Bench-201.

Each network is scored at its initialisation, without training or data, by `flow_score`: log10 of
Σ |θ ⊙ ∂R/∂θ| over its kernels (Abdelfattah et al. 2021), with norms left out ("synflow" of
zero-cost-nas and NASLib) and with the statistics of the one example of ones ("synflow_bn"). The
cell is an array argument, so that all networks of a form share one compiled program.

    python -m experiments.nas201                     # 1,000 cells, both forms
    python -m experiments.nas201 --draw              # from the rows that are stored
    python -m experiments.nas201 --smoke             # does it run? seconds

The networks are the benchmark's, for images of 32×32: five cells a stage at 16, 32 and 64 channels,
10 classes, PyTorch's default initialisation, one seed; a cell's kernels are the same in every
network that has them. A known criticism of such scores is that they follow the size of a network
(Ning et al. 2021): so ranks are compared with weights and multiply-adds. Accuracies of the
benchmark are not at hand, and nothing is said of them here.

Writes nas201.json, 50 cells a row (their numbers, see common/models/nas201.py; null is a score of
−inf; seconds of each call, after the one that compiles), and nas201.png.
"""

import dataclasses
import math
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.tree_util import Partial
from scipy.stats import rankdata

from experiments.common.figure import Figure, run
from experiments.common.models import nas201
from experiments.common.nas201_plot import FORMS, draw, joined
from experiments.common.rows import RESULTS, Row
from synflow_jax import __version__, flow_score

RECIPE = 1  # raise it when rows would come out otherwise than those made before
BATCH = 50
NORMS = {"synflow": nas201.no_norm, "synflow_bn": nas201.batch_norm}


@dataclasses.dataclass(frozen=True)
class Config:
    """Score random cells of NAS-Bench-201."""

    cells: int = 1000
    """How many, all different."""
    seed: int = 0
    """Decides which cells, and the initialisation."""
    smoke: bool = False
    """Ten cells of a network of one stage on small images: does it run? Seconds."""
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
        count = 10 if self.smoke else self.cells
        order = np.random.default_rng(self.seed).permutation(nas201.SPACE)
        return [int(number) for number in order[:count]]

    def params(self) -> nas201.Params:
        """Draw the params of all networks."""
        cells = 1 if self.smoke else nas201.CELLS
        return nas201.initialise(jax.random.key(self.seed), 10, self.channels, cells)

    def settings(self, form: str) -> list[Row]:
        """All that decides the rows of a form."""
        numbers = self.chosen()
        about = {"version": __version__, "recipe": RECIPE, "form": form, "seed": self.seed}
        about |= {"channels": list(self.channels), "side": self.side}
        starts = range(0, len(numbers), BATCH)
        return [{**about, "cells": numbers[start : start + BATCH]} for start in starts]


def make(config: Config, rows: list[Row]) -> Iterator[Row]:
    """Score the cells of each row, one after another, with one compiled program."""
    params, shape = config.params(), (config.side, config.side, 3)

    def score(form: str, number: int) -> tuple[float, float]:
        cell = jnp.array(nas201.cell_of(number), jnp.int32)
        start = time.perf_counter()
        apply_fn = Partial(nas201.network, cell, norm=NORMS[form])
        value = float(flow_score(params, apply_fn, shape))
        return value, time.perf_counter() - start

    for index, row in enumerate(rows):
        first = None if index else score(row["form"], row["cells"][0])[1]
        found = [score(row["form"], number) for number in row["cells"]]
        yield {
            "first_call": first and round(first, 2),
            "score": [round(value, 5) if math.isfinite(value) else None for value, _ in found],
            "seconds": [round(seconds, 4) for _, seconds in found],
        }


def ranks(rows: list[Row], costs: dict[int, tuple[int, int]]) -> dict[str, float]:
    """Correlate the ranks of cells by score, by weights and by multiply-adds (Spearman)."""
    plain, normed = joined(rows, "synflow"), joined(rows, "synflow_bn")
    cells = [n for n in plain if plain[n] is not None and normed.get(n) is not None]
    columns = {
        "synflow": [plain[n] for n in cells],
        "synflow_bn": [normed[n] for n in cells],
        "weights": [costs[n][0] for n in cells],
        "multiply-adds": [costs[n][1] for n in cells],
    }
    names = list(columns)
    ranked = np.corrcoef([rankdata(np.array(columns[name], float)) for name in names])
    pairs = [(a, b) for a in range(2) for b in range(a + 1, 4)]
    return {f"{names[a]} and {names[b]}": float(ranked[a, b]) for a, b in pairs}


def costs_of(config: Config, rows: list[Row]) -> dict[int, tuple[int, int]]:
    """Count weights and multiply-adds of every cell's network."""
    shapes = jax.eval_shape(config.params)
    numbers = {number for row in rows for number in row["cells"]}
    return {n: nas201.cost(nas201.cell_of(n), shapes, config.side) for n in numbers}


def claims(config: Config, rows: list[Row]) -> Iterator[tuple[str, bool]]:
    """Check what the rows show, and say how the ranks go together."""
    for form in (form for form in FORMS if joined(rows, form)):
        found = joined(rows, form)
        dead = [number for number, score in found.items() if score is None]
        cut = [number for number in found if not nas201.connects(nas201.cell_of(number))]
        text = f"{form}: of {len(found)} cells those without a path score −inf: {len(dead)}"
        yield text, sorted(dead) == sorted(cut)
    for pair, value in ranks(rows, costs_of(config, rows)).items():
        yield f"ranks by {pair} go together: Spearman {value:.3f}", value > 0


def main(config: Config) -> None:
    """Score the cells that are missing, draw, and say what came out."""
    figure = Figure(
        "nas201",
        [config.settings(form) for form in FORMS],
        lambda rows: make(config, rows),
        lambda rows, path: draw(rows, costs_of(config, rows), path),
        lambda rows: claims(config, rows),
    )
    run(figure, config)


if __name__ == "__main__":
    main(tyro.cli(Config, prog="python -m experiments.nas201", description=__doc__))
