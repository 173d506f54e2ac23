"""The table and the figure of benchmarks.sparse: the density from which on a way is worth it."""

from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from experiments.records.files import replacing

Row = dict[str, Any]
WORTH = 1.1  # times as fast as dense: less is lost in the noise of a shared machine
COLORS = {
    "BCOO": "#999999",
    "BCSR": "#CC79A7",
    "SciPy CSR": "#D55E00",
    "blocks 32": "#56B4E9",
    "blocks 64": "#0072B2",
    "blocks 128": "#004C7F",
    "Pallas 32": "#E69F00",
    "Pallas 64": "#009E73",
    "Pallas 128": "#F0E442",
}


def names(rows: list[Row]) -> list[str]:
    """List the ways that were measured, without the dense one."""
    return [name for name in COLORS if any(name in row["ratios"] for row in rows)]


def curve(rows: list[Row], shape: list[int], batch: int, name: str) -> list[tuple[float, float]]:
    """List (density, times as fast as dense) of one way, the largest density first."""
    some = [row for row in rows if (row["shape"], row["batch"]) == (shape, batch)]
    pairs = [(row["density"], row["ratios"][name]) for row in some if name in row["ratios"]]
    return sorted(pairs, reverse=True)


def worth(points: list[tuple[float, float]]) -> float | None:
    """Find the largest density with a way worth it there and at all densities below, or None."""
    found = None
    for density, ratio in reversed(points):
        if ratio < WORTH:
            break
        found = density
    return found


def cases(rows: list[Row]) -> list[tuple[list[int], int]]:
    """List shapes and batches in the order in which they were measured."""
    return [(list(shape), batch) for shape, batch in dict.fromkeys(map(_case, rows))]


def _case(row: Row) -> tuple[tuple[int, ...], int]:
    return tuple(row["shape"]), row["batch"]


def worth_cells(rows: list[Row], name: str) -> list[str]:
    """Write for each case the density from which on a way is worth it."""
    found = [worth(curve(rows, *case, name)) for case in cases(rows)]
    return ["never" if one is None else f"{one:g}" for one in found]


def ratio_cells(rows: list[Row], name: str, density: float) -> list[str]:
    """Write for each case how many times as fast as dense a way is at one density."""
    found = [dict(curve(rows, *case, name)).get(density) for case in cases(rows)]
    return ["–" if one is None else f"{one:.2g}" for one in found]


def show(rows: list[Row], console: Console) -> None:
    """Print from which density on each way is worth it."""
    table = Table("from density", title="Worth it", box=box.SIMPLE_HEAD)
    for shape, batch in cases(rows):
        table.add_column("\n×".join(map(str, shape)) + f"\nbatch\n{batch}", justify="right")
    for name in names(rows):
        table.add_row(name, *worth_cells(rows, name))
    table.caption = f"worth it: at least {WORTH} times as fast as dense, and at all densities below"
    console.print(table)


def draw(rows: list[Row], path: Path) -> None:
    """Draw times as fast as dense against density, a panel a shape and batch."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    found = cases(rows)
    shapes = [list(shape) for shape in dict.fromkeys(tuple(shape) for shape, _ in found)]
    batches = list(dict.fromkeys(batch for _, batch in found))
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        size = 3.2 * len(batches) + 1, 2.4 * len(shapes) + 0.7
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(len(shapes), len(batches), sharex=True, sharey=True, squeeze=False)
        for shape, row in zip(shapes, grid, strict=True):
            for batch, axes in zip(batches, row, strict=True):
                _panel(axes, rows, shape, batch)
            row[0].set_ylabel("times as fast as dense")
        for axes in grid[-1]:
            axes.set_xlabel("density")
        handles = {line.get_label(): line for axes in grid.flat for line in axes.lines[1:]}
        order = [name for name in names(rows) if name in handles]
        lines = [handles[name] for name in order]
        figure.legend(lines, order, loc="outside lower center", ncols=6, frameon=False)
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=140)


def _panel(axes: Any, rows: list[Row], shape: list[int], batch: int) -> None:
    axes.axhline(1, color="black", lw=0.8)
    for name in names(rows):
        points = curve(rows, shape, batch, name)
        if points:
            style = {"marker": "o", "ms": 3, "lw": 1.3, "color": COLORS[name], "label": name}
            axes.plot(*zip(*points, strict=True), **style)
    axes.set(xscale="log", yscale="log")
    axes.set_title(f"{'×'.join(map(str, shape))}, batch {batch}", fontsize=9.5)
    axes.grid(alpha=0.25)
