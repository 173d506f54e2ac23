"""Tables of a comparison: one line a method and ρ, and a summary of who wins and who collapses."""

import statistics
from collections import Counter
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from experiments.common.rows import Row
from experiments.common.sweep import DENSE

Group = tuple[str, float]
STYLE: Any = {
    "title_justify": "left",
    "caption_justify": "left",
    "box": box.SIMPLE_HEAD,
    "pad_edge": False,
    "padding": 0,
    "min_width": 76,
}


def group_rows(rows: list[Row]) -> dict[Group, list[Row]]:
    """Gather the seeds of each (method, log10 ρ), in the order of the rows."""
    groups: dict[Group, list[Row]] = {}
    for row in rows:
        groups.setdefault((row["method"], row["log10_rho"]), []).append(row)
    return groups


def mean(rows: list[Row], field: str = "accuracy") -> float:
    """Average a field over seeds."""
    return statistics.fmean(row[field] for row in rows)


def critical(rows: list[Row], method: str) -> float | None:
    """Find log10 ρ_cr: the largest ρ of the grid up to which no seed lost a layer, if any."""
    last = None
    for (name, log10_rho), seeds in sorted(group_rows(rows).items(), key=lambda item: item[0][1]):
        if name == method:
            if any(row["collapsed"] for row in seeds):
                return last
            last = log10_rho
    return last


def details(rows: list[Row]) -> Table:
    """Lay out every (method, ρ): accuracy, kept weights, collapsed layers, flow and time."""
    table = Table(title="Every method and ρ", **STYLE)
    table.caption = "accuracy in %, mean ± deviation over seeds; times in seconds a seed"
    for name in ("lg ρ", "method"):
        table.add_column(name, no_wrap=True)
    for name in ("accuracy", "best", "kept", "lg flow", "prune", "train"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("collapsed")
    previous = None
    for (method, log10_rho), seeds in group_rows(rows).items():
        if previous not in (None, log10_rho):
            table.add_section()
        previous = log10_rho
        table.add_row(f"{log10_rho:.2f}", method, *_cells(seeds))
    return table


def _cells(seeds: list[Row]) -> list[str]:
    flows = [row["log10_flow"] for row in seeds if row["log10_flow"] is not None]
    return [
        _spread(seeds),
        f"{100 * mean(seeds, 'accuracy_best'):.1f}",
        f"{mean(seeds, 'kept'):,.0f}",
        f"{statistics.fmean(flows):.2f}" if len(flows) == len(seeds) else "−∞",
        f"{statistics.median(row['seconds'] for row in seeds):.2f}",
        f"{mean(seeds, 'train_seconds'):.1f}",
        _collapsed(seeds),
    ]


def _spread(seeds: list[Row]) -> str:
    values = [100 * row["accuracy"] for row in seeds]
    text = f"{statistics.fmean(values):.1f}"
    return f"{text} ± {statistics.stdev(values):4.1f}" if len(values) > 1 else text


def _collapsed(seeds: list[Row]) -> str:
    counts = Counter(path.removesuffix("/kernel") for row in seeds for path in row["collapsed"])
    if len(counts) > 2:
        hit = sum(bool(row["collapsed"]) for row in seeds)
        return f"{len(counts)} layers{_partly(hit, len(seeds))}"
    return ", ".join(f"{path}{_partly(count, len(seeds))}" for path, count in counts.items())


def _partly(count: int, seeds: int) -> str:
    return "" if count == seeds else f" {count}/{seeds}"


def summary(rows: list[Row]) -> Table:
    """Lay out accuracy by method and ρ: the best of a column marked, † where a layer collapsed."""
    groups = group_rows(rows)
    dense = groups.pop((DENSE, 0.0))
    grid = sorted({log10_rho for _, log10_rho in groups})
    methods = list(dict.fromkeys(method for method, _ in groups))
    table = Table(title=f"Accuracy in % by log10 ρ; dense: {100 * mean(dense):.1f}", **STYLE)
    table.caption = "*: best of its ρ   †: some seed lost a layer   ρ_cr: the last ρ before that"
    table.add_column("method", no_wrap=True)
    for log10_rho in grid:
        table.add_column(f"{log10_rho:.2f}  ", justify="right", no_wrap=True)
    table.add_column("lg ρ_cr", justify="right", no_wrap=True)
    best = {x: max(mean(groups[m, x]) for m in methods) for x in grid}
    for method in methods:
        cells = [_mark(groups[method, x], best[x]) for x in grid]
        table.add_row(method, *cells, _critical(rows, method, grid))
    return table


def _critical(rows: list[Row], method: str, grid: list[float]) -> str:
    value = critical(rows, method)
    if value is None:
        return "none"
    return f"{'≥ ' if value == grid[-1] else ''}{value:.2f}"


def _mark(seeds: list[Row], best: float) -> str:
    lost = "†" if any(row["collapsed"] for row in seeds) else " "
    won = mean(seeds) == best
    text = f"{100 * mean(seeds):.1f}{'*' if won else ' '}{lost}"
    return f"[bold green]{text}[/]" if won else text


def show(rows: list[Row], path: Path, console: Console) -> None:
    """Print both tables, and write them to a text file."""
    tables = details(rows), summary(rows)
    with path.open("w") as file:
        Console(file=file, width=100).print(*tables)
    console.print(*tables)
