"""The picture of a comparison: accuracy against compression, and ρ_cr of each method."""

import math
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from experiments.draw.style import CROSS, RING, STYLES
from experiments.records.files import replacing
from experiments.records.groups import (
    DENSE,
    collapsed,
    critical,
    diverged,
    group_rows,
    max_rho,
    mean,
)
from experiments.records.rows import Row


def plot(rows: list[Row], title: str, path: Path) -> None:
    """Draw accuracy against ρ, a line a method with its range over seeds, to a PNG file.

    Below, a bar for each method ends at ρ_cr, the largest ρ of the grid without layer collapse.
    Crosses mark points where some seed lost a layer, rings where some seed diverged. The dashed
    line is ρ_max = N / L.

    Args:
      rows: all rows of the comparison.
      title: what is compared.
      path: the PNG file to write.
    """
    methods = [name for name in STYLES if any(row["method"] == name for row in rows)]
    with mpl.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(9.2, 6.2), layout="constrained")
        ratios = [4, 0.17 * len(methods) + 0.2]
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=ratios)
        for name in methods:
            _curve(upper, rows, name)
        _references(upper, lower, rows)
        _bars(lower, rows, methods)
        upper.set(title=title, ylabel="test accuracy (%)", ylim=(0, 104))
        upper.grid(alpha=0.25)
        figure.legend(loc="outside right upper", frameon=False)
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=160)


def _curve(axes: Any, rows: list[Row], name: str) -> None:
    color, line, marker = STYLES[name]
    groups = {x: seeds for (method, x), seeds in group_rows(rows).items() if method == name}
    grid = sorted(groups)
    rho = [10**x for x in grid]
    values = [[100 * row["accuracy"] for row in groups[x]] for x in grid]
    axes.fill_between(rho, [*map(min, values)], [*map(max, values)], color=color, alpha=0.13, lw=0)
    middle = [100 * mean(groups[x], "accuracy") for x in grid]
    axes.plot(rho, middle, line, color=color, marker=marker, ms=5, label=name)
    lost = [x for x in grid if collapsed(groups[x])]
    _points(axes, groups, lost, CROSS)
    _points(axes, groups, [x for x in grid if diverged(groups[x])], RING)


def _points(axes: Any, groups: dict[float, list[Row]], grid: list[float], style: Any) -> None:
    values = [100 * mean(groups[x], "accuracy") for x in grid]
    axes.plot([10**x for x in grid], values, zorder=5, **style)


def _references(upper: Any, lower: Any, rows: list[Row]) -> None:
    dense = 100 * mean([row for row in rows if row["method"] == DENSE], "accuracy")
    limit = max_rho(rows[0])
    upper.plot([], [], label="some seed lost a layer", **CROSS)
    if diverged(rows):
        upper.plot([], [], label="some seed diverged", **RING)
    upper.fill_between([], [], [], color="black", alpha=0.13, lw=0, label="min to max of seeds")
    upper.axhline(dense, color="black", lw=1, ls=":", label=f"dense, {dense:.1f} %")
    power = f"$\\rho_{{max}} = 10^{{{math.log10(limit):.2f}}}$"
    upper.axvline(limit, color="black", lw=1, ls="--", label=power)
    lower.axvline(limit, color="black", lw=1, ls="--")


def _bars(axes: Any, rows: list[Row], methods: list[str]) -> None:
    last = max(row["log10_rho"] for row in rows)
    for height, name in enumerate(reversed(methods)):
        color = STYLES[name][0]
        value = critical(rows, name) or 0.0
        axes.plot([1, 10**value], [height, height], color=color, lw=2.5, solid_capstyle="butt")
        marker = ">" if value == last else "|"
        axes.plot(10**value, height, marker, color=color, ms=7, mew=2.5)
    axes.set_yticks(range(len(methods)), methods[::-1], fontsize=9)
    axes.set(xscale="log", xlim=(1, None), ylim=(-0.7, len(methods) - 0.3))
    axes.set_xlabel("compression ρ = prunable / kept weights")
    title = r"no layer collapse up to $\rho_{cr}$ (arrow: none on this grid)"
    axes.set_title(title, fontsize=9, loc="left", pad=3)
