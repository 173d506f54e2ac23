"""Tables of a comparison: one line for each method and ρ, and a summary by method."""

import math
import statistics
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from experiments.records.files import replacing
from experiments.records.groups import DENSE, critical, diverged, group_rows, mean
from experiments.records.rows import Row

CAPTION = """accuracy: in %, mean ± deviation over seeds   ‡: some seed diverged
lg flow: median over seeds, or how many have no flow
prune, train: seconds a seed, median over seeds; train includes tests and,
in the first cell of a run, compilation; prune does not"""
SUMMARY_CAPTION = """*: best of its ρ   †: some seed lost a layer   ‡: some seed diverged
ρ_cr: the last ρ before any seed lost a layer"""
UNBOUNDED = 10_000  # columns: wider than any table
STYLE: Any = {
    "title_justify": "left",
    "caption_justify": "left",
    "box": box.SIMPLE_HEAD,
    "pad_edge": False,
    "padding": 0,
    "min_width": 76,
}


def details(rows: list[Row]) -> Table:
    """Lay out every (method, ρ): accuracy, kept weights, collapsed layers, flow and time."""
    table = Table(title="Every method and ρ", **STYLE)
    table.caption = CAPTION
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
    return [
        _spread(seeds),
        f"{100 * mean(seeds, 'accuracy_best'):.1f}",
        f"{mean(seeds, 'kept'):,.0f}",
        _flow(seeds),
        f"{statistics.median(row['seconds'] for row in seeds):.2f}",
        f"{statistics.median(row['train_seconds'] for row in seeds):.1f}",
        _collapsed(seeds),
    ]


def _flow(seeds: list[Row]) -> str:
    flows = [row["log10_flow"] for row in seeds if row["log10_flow"] is not None]
    dead = len(seeds) - len(flows)
    return f"{dead}/{len(seeds)} dead" if dead else f"{statistics.median(flows):.2f}"


def _spread(seeds: list[Row]) -> str:
    values = [100 * row["accuracy"] for row in seeds]
    text = f"{'‡ ' if diverged(seeds) else ''}{statistics.fmean(values):.1f}"
    return f"{text} ± {statistics.stdev(values):4.1f}" if len(values) > 1 else text


def _collapsed(seeds: list[Row]) -> str:
    counts = Counter(path.removesuffix("/kernel") for row in seeds for path in row["collapsed"])
    if len(counts) > 2:
        hit = sum(bool(row["collapsed"]) for row in seeds)
        return f"{len(counts)} layers{_partly(hit, len(seeds))}"
    return ", ".join(f"{path}{_partly(count, len(seeds))}" for path, count in counts.items())


def _partly(count: int, seeds: int) -> str:
    return "" if count == seeds else f" {count}/{seeds}"


def summary(rows: list[Row], part: list[float] | None = None) -> Table:
    """Lay out accuracy by method and ρ, marking the best of a column, collapse and divergence.

    Args:
      rows: all rows of the comparison.
      part: the log10 ρ to show; None is all.

    Returns:
      The table.
    """
    groups = group_rows(rows)
    dense = groups.pop((DENSE, 0.0))
    methods = list(dict.fromkeys(method for method, _ in groups))
    shown = part or _grid(rows)
    title = f"Accuracy in % by log10 ρ; dense: {_mark(dense, math.inf).strip()}"
    table = Table(title=title, caption=SUMMARY_CAPTION, **STYLE)
    table.add_column("method", no_wrap=True)
    for log10_rho in shown:
        table.add_column(f"{log10_rho:.2f}  ", justify="right", no_wrap=True)
    table.add_column("lg ρ_cr", justify="right", no_wrap=True)
    best = {
        x: max(mean(groups[m, x], "accuracy") for m in methods if (m, x) in groups) for x in shown
    }
    for method in methods:
        cells = [_mark(groups.get((method, x), []), best[x]) for x in shown]
        table.add_row(method, *cells, _critical(rows, method, _grid(rows)))
    return table


def _grid(rows: list[Row]) -> list[float]:
    return sorted({row["log10_rho"] for row in rows if row["method"] != DENSE})


def summaries(rows: list[Row], width: int, part: list[float] | None = None) -> Iterator[Table]:
    """Split the summary by ρ into tables of at most `width` columns, if possible."""
    shown = part or _grid(rows)
    table, half = summary(rows, shown), math.ceil(len(shown) / 2)
    if half == len(shown) or Console(width=UNBOUNDED).measure(table).maximum <= width:
        yield table
    else:
        for some in (shown[:half], shown[half:]):
            yield from summaries(rows, width, some)


def _critical(rows: list[Row], method: str, grid: list[float]) -> str:
    value = critical(rows, method)
    if value is None:
        return "none"
    return f"{'≥ ' if value == grid[-1] else ''}{value:.2f}"


def _mark(seeds: list[Row], best: float) -> str:
    if not seeds:  # out of the method's reach
        return "–  "
    lost = "†" if any(row["collapsed"] for row in seeds) else ""
    value = mean(seeds, "accuracy")
    won = value == best
    mark = f"{'‡' if diverged(seeds) else ''}{lost}" or " "
    text = f"{100 * value:.1f}{'*' if won else ' '}{mark}"
    return f"[bold green]{text}[/]" if won else text


def show(rows: list[Row], path: Path, console: Console) -> None:
    """Print both tables, and write them to a text file."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        Console(file=file, width=UNBOUNDED).print(details(rows), summary(rows))
    console.print(details(rows), *summaries(rows, console.width))
