"""The picture of critical compressions by network, method and seed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from experiments.draw.style import LOOK, STYLES
from experiments.records.files import replacing
from experiments.records.rows import Row


def draw(rows: Sequence[Row], paper: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw a panel for each network, a line for each method, a point for each seed; a PNG file.

    Args:
      rows: the rows of all networks.
      paper: the paper's numbers, drawn as crosses in the panel of the same network.
      path: the file.
    """
    models = list(dict.fromkeys(row["model"] for row in rows))
    with mpl.rc_context(LOOK):
        size = (1.4 + 3.0 * len(models), 3.4)
        picture = Figure(figsize=size, layout="constrained")
        every = picture.subplots(1, len(models), sharey=True, squeeze=False)[0]
        names = [name for name in STYLES if any(row["method"] == name for row in rows)]
        for axes, model in zip(every, models, strict=True):
            _panel(axes, [row for row in rows if row["model"] == model], names)
            _crosses(axes, [row for row in paper if row["model"] == model], names)
            axes.set(title=f"{model}, {rows[0]['dataset']}", xlim=(0, None))
            axes.set(ylim=(len(names) - 0.4, -0.6), xlabel=r"$\log_{10}\ \rho_{cr}$")
        every[0].set_yticks(range(len(names)), names)
        picture.suptitle("The largest compression without an empty layer, a point a seed")
        with replacing(path) as temporary:
            picture.savefig(temporary, dpi=150)


def _panel(axes: Any, rows: Sequence[Row], names: Sequence[str]) -> None:
    for height, name in enumerate(names):
        found = [row["log10_rho_cr"] for row in rows if row["method"] == name]
        spread = [height + 0.5 * (index / max(len(found), 2) - 0.4) for index in range(len(found))]
        axes.plot(found, spread, "o", color=STYLES[name][0], ms=4, alpha=0.6, mec="none")
    axes.axvline(rows[0]["log10_rho_max"], color="black", ls="--", lw=1)
    axes.grid(alpha=0.25, axis="x")


def _crosses(axes: Any, paper: Sequence[dict[str, Any]], names: Sequence[str]) -> None:
    known = [row for row in paper if row["method"] in names]
    if known:
        xs = [row["log10_rho_cr"] for row in known]
        ys = [names.index(row["method"]) + 0.1 * (row["run"] - 2) for row in known]
        label = "the paper's, CIFAR-100"
        axes.plot(xs, ys, "x", color="black", ms=6, alpha=0.6, label=label)
        axes.legend(frameon=False, fontsize=7, loc="lower right")
