"""The picture of an architecture search: scores, network size, the best cells, the time."""

from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from experiments.draw.style import LOOK
from experiments.models.nas201 import EDGES, cell_of
from experiments.records.files import replacing
from experiments.records.rows import Row

FORMS = {"synflow": "#0072B2", "synflow_bn": "#D55E00"}
NAMES = ("none", "skip", "conv 1×1", "conv 3×3", "pool 3×3")
PLACES = ((0.0, 0.5), (0.38, 1.0), (0.62, 0.0), (1.0, 0.5))  # of the four nodes of a cell

Scores = dict[int, float | None]
Costs = dict[int, tuple[int, int]]


def joined(rows: Iterable[Row], form: str) -> Scores:
    """Collect the scores of a form by the numbers of cells; None is −inf."""
    mine = [row for row in rows if row["form"] == form]
    return {n: s for row in mine for n, s in zip(row["cells"], row["score"], strict=True)}


def draw(rows: list[Row], costs: Costs, path: Path) -> None:
    """Draw the scores of both forms to a PNG file.

    Args:
      rows: rows of one form or both.
      costs: weights and multiply-adds by the numbers of cells.
      path: the file.
    """
    found = {form: joined(rows, form) for form in FORMS}
    seconds = {
        form: [s for row in rows if row["form"] == form for s in row["seconds"]] for form in FORMS
    }
    with mpl.rc_context(LOOK | {"axes.titlesize": 9}):
        figure = Figure(figsize=(10.2, 5.6), layout="constrained")
        axes = figure.subplots(2, 3)
        _spread(axes[0, 0], found)
        _against_weights(axes[0, 1], found, costs)
        _both(axes[0, 2], found)
        _time(axes[1, 0], seconds)
        for ax, form in zip(axes[1, 1:], FORMS, strict=True):
            _best(ax, form, found[form])
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=130)


def finite(scores: Scores) -> dict[int, float]:
    """Leave out the cells whose score is −inf."""
    return {number: score for number, score in scores.items() if score is not None}


def _spread(ax: Any, found: dict[str, Scores]) -> None:
    scores = found["synflow"]
    ax.hist([*finite(scores).values()], 40, color=FORMS["synflow"])
    dead = sum(score is None for score in scores.values())
    ax.set(title=f"{len(scores)} cells, {dead} without a path (−inf)", ylabel="cells")
    ax.set_xlabel("synflow = log10 Σ|θ·∂R/∂θ|, no norm")


def _against_weights(ax: Any, found: dict[str, Scores], costs: Costs) -> None:
    scores = finite(found["synflow"])
    sizes = [costs[number][0] for number in scores]
    convs = [sum(operation in (2, 3) for operation in cell_of(number)) for number in scores]
    dots = ax.scatter(sizes, [*scores.values()], c=convs, s=7, cmap="viridis", vmin=0, vmax=6)
    ax.figure.colorbar(dots, ax=ax, label="convolutions of the cell")
    ax.set(title="synflow against size", xlabel="weights of the network", ylabel="synflow")


def _both(ax: Any, found: dict[str, Scores]) -> None:
    plain, normed = finite(found["synflow"]), finite(found["synflow_bn"])
    both = [number for number in plain if number in normed]
    convs = [sum(operation in (2, 3) for operation in cell_of(number)) for number in both]
    ax.scatter([plain[n] for n in both], [normed[n] for n in both], c=convs, s=7, vmin=0, vmax=6)
    ax.set(title="with norm against without", xlabel="synflow", ylabel="synflow_bn")


def _time(ax: Any, seconds: dict[str, list[float]]) -> None:
    every = [1e3 * time for times in seconds.values() for time in times]
    bins = np.geomspace(min(every), max(every) * 1.01, 40)
    for form, times in seconds.items():
        if times:
            label = f"{form}, median {1e3 * median(times):.0f} ms"
            ax.hist([1e3 * t for t in times], bins, color=FORMS[form], alpha=0.6, label=label)
    ax.set(title="time of a cell, after the compile", xlabel="ms", ylabel="cells", xscale="log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_ylim(0, 1.35 * ax.get_ylim()[1])
    ax.legend(frameon=False, loc="upper right")


def _best(ax: Any, form: str, scores: Scores) -> None:
    ax.set_axis_off()
    values = finite(scores)
    if not values:
        return
    number = max(values, key=lambda n: values[n])
    ax.set_title(f"highest {form}, {values[number]:.2f}: cell {number}")
    for operation, (start, end) in zip(cell_of(number), EDGES, strict=True):
        (x0, y0), (x1, y1) = PLACES[start], PLACES[end]
        arrow = {"arrowstyle": "->", "color": FORMS[form] if operation else "#cccccc", "lw": 1.3}
        ax.annotate("", (x1, y1), (x0, y0), arrowprops=arrow | {"shrinkA": 9, "shrinkB": 9})
        crossing = (start, end) in ((0, 3), (1, 2))
        at = 0.27 if crossing else 0.5
        place = (x0 + at * (x1 - x0), y0 + at * (y1 - y0))
        box = {"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none"}
        ax.text(*place, NAMES[operation], ha="center", va="center", fontsize=8, bbox=box)
    for node, (x, y) in enumerate(PLACES):
        ax.plot(x, y, "o", color="white", mec="black", ms=15)
        ax.text(x, y, node, ha="center", va="center", fontsize=9)
    ax.set(xlim=(-0.1, 1.1), ylim=(-0.2, 1.2))
