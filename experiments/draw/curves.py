"""Accuracy against compression, one panel for each network: our curves over the paper's."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.figure import Figure

from experiments.draw.style import CROSS, LOOK, STYLES
from experiments.records.files import replacing
from experiments.records.groups import by_compression, collapsed, max_rho, mean
from experiments.records.published import Curve, Panel
from experiments.records.rows import Row

Axis = Literal["rho", "effective"]
LABELS = {
    "rho": "compression ρ = prunable / kept weights",
    "effective": "effective compression: prunable weights / kept weights on a path",
}


def draw(
    panels: Sequence[Panel],
    title: str,
    path: Path,
    axis: Axis = "rho",
    extra: Callable[[Any], None] | None = None,
) -> None:
    """Draw the panels to a PNG file: our curves solid, min to max shaded, the paper's faint.

    Args:
      panels: in reading order; up to three a line.
      title: title of the picture.
      path: the file.
      axis: compression by the count of kept weights, or of those on a path from input to output;
        networks without such a path are not drawn on the second.
      extra: draws more on the axes of every panel.
    """
    wide = 2 if len(panels) == 4 else min(3, len(panels))
    high = math.ceil(len(panels) / wide)
    with mpl.rc_context(LOOK):
        size = (1.6 + (7.0 if wide == 1 else 3.6 * wide), 1.2 + (4.2 if wide == 1 else 2.8 * high))
        picture = Figure(figsize=size, layout="constrained")
        every = picture.subplots(high, wide, squeeze=False)
        for index, axes in enumerate(every.flat):
            if index < len(panels):
                _panel(axes, panels[index], axis)
                extra(axes) if extra else None
            else:
                axes.set_axis_off()
        picture.supxlabel(LABELS[axis], fontsize=9)
        picture.supylabel("test accuracy of the best epoch (%)", fontsize=9)
        picture.suptitle(title, fontsize=10)
        _legend(picture, every[0, 0], panels, axis)
        with replacing(path) as temporary:
            picture.savefig(temporary, dpi=150)


def _panel(axes: Any, panel: Panel, axis: Axis) -> None:
    names = {row["method"] for row in panel.rows}
    for name, (color, line, marker) in STYLES.items():
        if axis == "rho" and name in panel.paper:
            _paper(axes, panel.paper[name], color)
        if name in names:
            _ours(axes, by_compression(panel.rows, name), axis, (color, line, marker, name))
    _limit(axes, panel.rows, axis)
    axes.set(title=panel.title, xscale="log", ylim=(0, 102))
    axes.grid(alpha=0.25)


def _paper(axes: Any, curve: Curve, color: str) -> None:
    rho = [10**x for x in curve.log10_rho]
    axes.fill_between(rho, curve.low, curve.high, color=color, alpha=0.10, lw=0)
    axes.plot(rho, curve.mean, color=color, alpha=0.35, lw=3.5, solid_capstyle="round")


def _ours(axes: Any, groups: dict[float, list[Row]], axis: Axis, style: tuple) -> None:
    color, line, marker, name = style
    points = [(x, seeds) for x, seeds in (_place(group, axis) for group in groups.values()) if x]
    values = [[100 * row["top1_best"] for row in seeds] for _, seeds in points]
    xs, middle = [x for x, _ in points], [statistics.fmean(value) for value in values]
    axes.fill_between(xs, [*map(min, values)], [*map(max, values)], color=color, alpha=0.15, lw=0)
    axes.plot(xs, middle, line, color=color, marker=marker, ms=3.5, lw=1.3, label=name)
    lost = [(x, y) for (x, seeds), y in zip(points, middle, strict=True) if collapsed(seeds)]
    axes.plot(*zip(*lost, strict=True), **CROSS | {"ms": 6}) if lost else None


def _place(seeds: list[Row], axis: Axis) -> tuple[float, list[Row]]:
    """Return the place of a group on the axis, 0 for none, and the seeds that have one."""
    if axis == "rho":
        return 10 ** seeds[0]["log10_rho"], seeds
    alive = [row for row in seeds if row["effective_density"] > 0]
    logs = [-math.log10(row["effective_density"]) for row in alive]
    return (10 ** statistics.fmean(logs) if alive else 0.0), alive


def _limit(axes: Any, rows: list[Row], axis: Axis) -> None:
    limit = max_rho(rows[0])
    last = max(row["log10_rho"] for row in rows)
    if axis == "rho" and math.log10(limit) < last + 0.5:
        axes.axvline(limit, color="black", lw=1, ls="--")
        power = f"$\\rho_{{max}} = 10^{{{math.log10(limit):.2f}}}$"
        axes.text(limit, 97, power + " ", ha="right", va="top", fontsize=8)


def arrows(axes: Any, marks: Mapping[str, float | None], rows: Sequence[Row]) -> None:
    """Draw an arrow from above to each method's ρ_cr on its curve."""
    for name, x in marks.items():
        groups = by_compression(rows, name)
        if x not in groups:
            continue
        y = 100 * mean(groups[x])
        arrow = {"arrowstyle": "->", "color": STYLES[name][0], "lw": 1.4}
        axes.annotate("", (10**x, y + 1.5), (10**x, y + 13), arrowprops=arrow)


def _legend(picture: Figure, axes: Any, panels: Sequence[Panel], axis: Axis) -> None:
    if axis == "rho" and any(panel.paper for panel in panels):
        axes.plot([], [], color="black", alpha=0.35, lw=3.5, label="the paper's (faint)")
    if axis == "rho" and any(collapsed(panel.rows) for panel in panels):
        axes.plot([], [], label="some seed lost a layer", **CROSS | {"ms": 6})
    pairs = [
        pair
        for axes in picture.axes
        for pair in zip(*axes.get_legend_handles_labels(), strict=True)
    ]
    handles = {label: handle for handle, label in pairs}  # each label once
    picture.legend([*handles.values()], [*handles], loc="outside right upper", frameon=False)
