"""Tables and picture of the comparison on networks with branches."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from experiments.cells.tasks import TASKS, Measure
from experiments.draw.decoder import LINES as DECODER
from experiments.draw.decoder import MIDDLE, STYLE
from experiments.draw.panels import panels
from experiments.draw.style import CROSS
from experiments.records.files import replacing
from experiments.records.groups import DENSE, collapsed, diverged, group_rows
from experiments.records.rows import Row

LINES = {
    **DECODER,
    "fair": ("#D55E00", "-", "s"),
    "fair-fifth": ("#CC79A7", "--", "D"),
    "synflow-plain": ("#666666", ":", "v"),
}
CAPTION = """mean ± deviation over seeds   *: best of its ρ
†: layers without a kept weight, mean over seeds   ‡: some seed diverged"""
PARTS_CAPTION = "of the prunable weights of each part, mean over seeds"


def by_task(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Gather the rows of each task, in the order of the rows."""
    tasks: dict[str, list[Row]] = {}
    for row in rows:
        tasks.setdefault(row["task"], []).append(row)
    return tasks


def figures(task: str, rows: list[Row]) -> Table:
    """Lay out the figure of one task by method and ρ."""
    measure, groups = TASKS[task].measure, group_rows(rows)
    better = "higher" if measure.higher else "lower"
    dense = _spread(groups.pop((DENSE, 0.0)), measure)
    title = f"{task}: {measure.name}, {better} is better; dense: {dense}"
    table = Table(title=title, caption=CAPTION, **STYLE)
    table.add_column("method")
    grid = sorted({x for _, x in groups})
    for x in grid:
        table.add_column(f"{10**x:.4g}", justify="right")
    best = {x: _best([s for (_, at), s in groups.items() if at == x], measure) for x in grid}
    for method in dict.fromkeys(name for name, _ in groups):
        cells = [groups.get((method, x), []) for x in grid]
        stars = ["*" if _mean(c) == best[x] else "" for c, x in zip(cells, grid, strict=True)]
        shown = [_spread(c, measure) + star for c, star in zip(cells, stars, strict=True)]
        table.add_row(method, *shown)
    return table


def _finite(seeds: list[Row]) -> list[float]:
    return [row["value"] for row in seeds if row["value"] is not None]


def _mean(seeds: list[Row]) -> float | None:
    values = _finite(seeds)
    return statistics.fmean(values) if values else None


def _best(groups: list[list[Row]], measure: Measure) -> float | None:
    """Return the best mean, or None where no seed of any method has a figure."""
    means = [value for seeds in groups if (value := _mean(seeds)) is not None]
    return (max if measure.higher else min)(means, default=None)


def _spread(seeds: list[Row], measure: Measure) -> str:
    values, digits = _finite(seeds), measure.digits
    if not seeds:
        return "–"
    text = f"{statistics.fmean(values):.{digits}f}" if values else "–"
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    lost = statistics.fmean(len(row["collapsed"]) for row in seeds)
    empty = f" †{lost:.2g}" if lost else ""
    return f"{text}{deviation}{empty}{'‡' if diverged(seeds) else ''}"


def parts(rows: list[Row]) -> Table:
    """Lay out how much of each part of a network is kept by method, at the ρ nearest to 10."""
    near = min(
        (row["log10_rho"] for row in rows if row["method"] != DENSE),
        key=lambda x: abs(10**x - MIDDLE),
    )
    some = [row for row in rows if row["method"] != DENSE and row["log10_rho"] == near]
    methods = list(dict.fromkeys(row["method"] for row in some))
    title = f"Kept in % at ρ = {10**near:.4g}"
    table = Table(title=title, caption=PARTS_CAPTION, **STYLE)
    for name in ("task", "part"):
        table.add_column(name)
    for method in methods:
        table.add_column(method, justify="right")
    for task, seeds in by_task(some).items():
        groups = {method: [row for row in seeds if row["method"] == method] for method in methods}
        for number, part in enumerate(seeds[0]["density_per_part"]):
            cells = [_density(groups[method], part) for method in methods]
            table.add_row("" if number else task, part, *cells)
        table.add_section()
    return table


def _density(seeds: list[Row], part: str) -> str:
    if not seeds:  # a task that was run without this method
        return "–"
    return f"{100 * statistics.fmean(row['density_per_part'][part] for row in seeds):.1f}"


def show(rows: list[Row], path: Path, console: Console) -> None:
    """Print all tables, and write them to a text file."""
    tables = [*(figures(task, some) for task, some in by_task(rows).items()), parts(rows)]
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        Console(file=file, width=100).print(*tables)
    console.print(*tables)


def plot(rows: list[Row], path: Path) -> None:
    """Draw the figure of every task against ρ to a PNG file, a panel a task.

    A line is the mean of a method over seeds, with the range of seeds around it; the dotted line is
    the dense network. Crosses mark points where some seed lost a layer.

    Args:
      rows: all rows of the comparison.
      path: the PNG file to write.
    """
    tasks = by_task(rows)
    ticks = sorted({row["rho"] for row in rows if row["method"] != DENSE})

    def draw(axes: Any, index: int) -> None:
        some = list(tasks.values())[index]
        for method in dict.fromkeys(row["method"] for row in some if row["method"] != DENSE):
            _curve(axes, some, method)
        axes.axhline(_mean(_of(some, DENSE)), color="black", lw=1, ls=":", label="dense")
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{rho:g}" for rho in ticks])
        axes.minorticks_off()
        axes.grid(alpha=0.25)
        if not index:
            axes.plot([], [], label="lost a layer", **CROSS)
            axes.legend(frameon=False, fontsize=7)

    arrows = {name: "↑" if TASKS[name].measure.higher else "↓" for name in tasks}
    short = {name: TASKS[name].measure.name.partition(",")[0] for name in tasks}
    titles = [f"{name}\n{short[name]} {arrow}" for name, arrow in arrows.items()]
    seeds = len({row["seed"] for row in rows})
    title = f"Networks with branches, pruned before training, {seeds} seeds"
    panels(titles, draw, path, xlabel="compression ρ", ylabel="", title=title, sharey=False)


def _of(rows: list[Row], method: str) -> list[Row]:
    return [row for row in rows if row["method"] == method]


def _curve(axes: Any, rows: list[Row], method: str) -> None:
    color, line, marker = LINES[method]
    groups = {x: seeds for (_, x), seeds in group_rows(_of(rows, method)).items() if _finite(seeds)}
    grid = sorted(groups)
    rho, middle = [10**x for x in grid], [_mean(groups[x]) for x in grid]
    low, high = ([end(_finite(groups[x])) for x in grid] for end in (min, max))
    axes.fill_between(rho, low, high, color=color, alpha=0.15, lw=0)
    axes.plot(rho, middle, line, color=color, marker=marker, ms=4, label=method)
    lost = [x for x in grid if collapsed(groups[x])]
    axes.plot([10**x for x in lost], [_mean(groups[x]) for x in lost], zorder=5, **CROSS)
