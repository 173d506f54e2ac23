"""Tables and picture of the comparison on the decoder: losses, and densities of layers."""

import statistics
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.table import Table

from experiments.records.files import replacing
from experiments.records.groups import DENSE, group_rows
from experiments.records.rows import Row

LINES = {
    "synflow": ("#0072B2", "-", "o"),
    "random-erk": ("#009E73", "--", "P"),
    "magnitude": ("#E69F00", "-", "^"),
    "synflow-erk": ("#56B4E9", "--", "o"),
}
CAPTION = """validation loss, mean ± deviation over seeds   *: best of its ρ
†: some seed lost a layer   ‡: some seed diverged"""
STYLE: Any = {"box": box.SIMPLE_HEAD, "title_justify": "left", "caption_justify": "left"}
STYLE |= {"min_width": 68, "pad_edge": False}
MIDDLE = 10.0  # densities are shown at the ρ nearest to this


def losses(rows: list[Row]) -> Table:
    """Lay out the loss in bits per character by method and ρ."""
    groups = group_rows(rows)
    title = f"Bits per character by ρ; dense: {_spread(groups.pop((DENSE, 0.0)))}"
    table = Table(title=title, caption=CAPTION, **STYLE)
    grid = sorted({x for _, x in groups})
    table.add_column("method")
    for x in grid:
        table.add_column(f"{10**x:.4g}", justify="right")
    best = {x: min(_mean(seeds) for (_, at), seeds in groups.items() if at == x) for x in grid}
    for method in dict.fromkeys(name for name, _ in groups):
        cells = [groups[method, x] for x in grid]
        stars = ["*" if _mean(c) == best[x] else "" for c, x in zip(cells, grid, strict=True)]
        table.add_row(method, *[_spread(c) + s for c, s in zip(cells, stars, strict=True)])
    return table


def _finite(seeds: list[Row]) -> list[float]:
    return [row["bits"] for row in seeds if row["bits"] is not None]


def _mean(seeds: list[Row]) -> float:
    values = _finite(seeds)
    return statistics.fmean(values) if values else float("inf")


def _spread(seeds: list[Row]) -> str:
    values = _finite(seeds)
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    lost = "†" if any(row["collapsed"] for row in seeds) else ""
    wild = "‡" if any(row["diverged"] for row in seeds) else ""
    return f"{_mean(seeds):.3f}{deviation}{lost}{wild}"


def densities(rows: list[Row]) -> Table:
    """Lay out the density of every layer in % by method, at the ρ nearest to 10."""
    groups = group_rows([row for row in rows if row["method"] != DENSE])
    near = min((x for _, x in groups), key=lambda x: abs(10**x - MIDDLE))
    shown = {method: seeds for (method, x), seeds in groups.items() if x == near}
    title = f"Kept of each layer in % at ρ = {10**near:.4g}, mean over seeds"
    caption = "†: empty in so many seeds"
    table = Table(title=title, caption=caption, **STYLE)
    table.add_column("layer")
    for method in shown:
        table.add_column(method, justify="right")
    for layer in rows[0]["kept_per_layer"]:
        cells = [_density(seeds, layer) for seeds in shown.values()]
        table.add_row(layer.removesuffix("/kernel"), *cells)
    return table


def _density(seeds: list[Row], layer: str) -> str:
    values = [row["density_per_layer"][layer] for row in seeds]
    empty = sum(row["kept_per_layer"][layer] == 0 for row in seeds)
    lost = f" †{empty}/{len(seeds)}" if empty else ""
    return f"{100 * statistics.fmean(values):.1f}{lost}"


def show(rows: list[Row], path: Path, console: Console) -> None:
    """Print both tables, and write them to a text file."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        Console(file=file, width=100).print(losses(rows), densities(rows))
    console.print(losses(rows), densities(rows))


def plot(rows: list[Row], path: Path) -> None:
    """Draw the loss against ρ to a PNG file: a line for each method, with its range over seeds."""
    groups = group_rows(rows)
    dense = _mean(groups.pop((DENSE, 0.0)))
    with mpl.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        axes = figure.subplots()
        for name in dict.fromkeys(method for method, _ in groups):
            color, line, marker = LINES[name]
            found = {x: s for (m, x), s in groups.items() if m == name and _finite(s)}
            grid = sorted(found)
            rho, middle = [10**x for x in grid], [_mean(found[x]) for x in grid]
            low, high = ([f(_finite(found[x])) for x in grid] for f in (min, max))
            axes.fill_between(rho, low, high, color=color, alpha=0.15, lw=0)
            axes.plot(rho, middle, line, color=color, marker=marker, ms=5, label=name)
        axes.axhline(dense, color="black", lw=1, ls=":", label=f"dense, {dense:.2f}")
        seeds, steps = len({row["seed"] for row in rows}), rows[0]["steps"]
        ticks = sorted({row["rho"] for row in rows if row["method"] != DENSE})
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{rho:g}" for rho in ticks])
        axes.minorticks_off()
        axes.set(
            title=f"Character decoder, {seeds} seeds, {steps} steps",
            xlabel="compression ρ = prunable / kept weights",
            ylabel="validation loss (bits per character)",
        )
        axes.grid(alpha=0.25)
        axes.legend(frameon=False)
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=160)
