"""The picture of Figure 5: accuracy by iterations of pruning, and layers during training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from experiments.cells.iterative import IMP, XAVIER
from experiments.draw.style import CROSS, LOOK, STYLES
from experiments.records.files import replacing
from experiments.records.groups import DENSE, by_compression, collapsed, mean
from experiments.records.rows import Row

SHADES = {1: "#B8860B", 2: "#C2185B", 3: "#4A148C"}


def slope(row: Row, epoch: int) -> float:
    """Fit log mean square = slope · log 1/size + a constant, over the layers after an epoch."""
    sizes = np.array([*row["size_per_layer"].values()], float)
    means = np.array(row["mean_square_per_layer"][epoch])
    return float(np.polyfit(-np.log(sizes), np.log(means), 1)[0])


def draw(rows: Sequence[Row], published: Sequence[dict[str, Any]], title: str, path: Path) -> None:
    """Draw both panels to a PNG file.

    Args:
      rows: rows of both panels.
      published: the paper's points of panel a, drawn faint; empty for other settings.
      title: title of the picture.
      path: the file.
    """
    with mpl.rc_context(LOOK):
        picture = Figure(figsize=(11.5, 4.4), layout="constrained")
        left, right = picture.subplots(1, 2)
        _accuracy(left, [row for row in rows if row["method"] != XAVIER], published)
        _layers(right, picture, [row for row in rows if row["method"] == XAVIER])
        picture.suptitle(title, fontsize=10)
        with replacing(path) as temporary:
            picture.savefig(temporary, dpi=150)


def _accuracy(axes: Any, rows: list[Row], published: Sequence[dict[str, Any]]) -> None:
    for count, color in SHADES.items():
        faint = [x for x in published if x["iterations"] == count]
        xs, ys = [10 ** x["log10_rho"] for x in faint], [x["top1"] for x in faint]
        axes.plot(xs, ys, "o", color=color, alpha=0.3, ms=10, mec="none")
        mine = [row for row in rows if row["method"] == DENSE or row["rounds"] == count]
        label = f"{count} iteration{'s' if count > 1 else ''}"
        _line(axes, by_compression(mine, IMP), (color, "-", "o"), label)
    for name, style in STYLES.items():
        if any(row["method"] == name for row in rows):
            _line(axes, by_compression(rows, name), style, f"{name}, at initialisation")
    if published:
        axes.plot([], [], "o", color="black", alpha=0.3, ms=10, mec="none", label="the paper's")
    if any(row["collapsed"] for row in rows):
        axes.plot([], [], label="some seed lost a layer", **CROSS | {"ms": 6})
    axes.set(xscale="log", ylim=(0, 102), xlabel="compression ρ = prunable / kept weights")
    axes.set(ylabel="test accuracy of the best epoch (%)", title=_named("a", rows))
    axes.legend(frameon=False, fontsize=7)
    axes.grid(alpha=0.25)


def _line(axes: Any, groups: dict[float, list[Row]], style: tuple, label: str) -> None:
    if set(groups) <= {0.0}:
        return
    color, line, marker = style
    xs, seeds = [10**x for x in groups], [*groups.values()]
    values = [[100 * row["top1_best"] for row in group] for group in seeds]
    axes.fill_between(xs, [*map(min, values)], [*map(max, values)], color=color, alpha=0.13, lw=0)
    ys = [100 * mean(group) for group in seeds]
    axes.plot(xs, ys, line, color=color, marker=marker, ms=4, lw=1.3, label=label)
    lost = [point for *point, group in zip(xs, ys, seeds, strict=True) if collapsed(group)]
    axes.plot(*zip(*lost, strict=True), **CROSS | {"ms": 6}) if lost else None


def _layers(axes: Any, picture: Figure, rows: list[Row]) -> None:
    if not rows:
        axes.set_axis_off()
        return
    last = len(rows[0]["mean_square_per_layer"]) - 1
    colors = mpl.colormaps["viridis"]
    for row in rows:
        sizes = 1 / np.array([*row["size_per_layer"].values()], float)
        for epoch, means in enumerate(row["mean_square_per_layer"]):
            axes.plot(sizes, means, "o", color=colors(epoch / last), ms=4, alpha=0.7)
    axes.set(xscale="log", yscale="log", xlabel="1 / weights of the layer", title=_named("b", rows))
    axes.set(ylabel="mean squared magnitude of the layer's weights")
    norm = Normalize(0, last)
    picture.colorbar(ScalarMappable(norm, colors), ax=axes, label="epoch")


def _named(panel: str, rows: Sequence[Row]) -> str:
    row = rows[0]
    return f"({panel}) {row['model']}, {row['dataset']}, {row['epochs']} epochs"
