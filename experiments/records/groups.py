"""Rows gathered by method and compression ratio, and what is read off the seeds of a group."""

import statistics
from collections.abc import Sequence

from experiments.records.rows import Row

DENSE = "dense"  # the method of a row whose network is not pruned
Group = tuple[str, float]  # method and log10 ρ


def group_rows(rows: Sequence[Row]) -> dict[Group, list[Row]]:
    """Gather the seeds of each (method, log10 ρ), in the order of the rows."""
    groups: dict[Group, list[Row]] = {}
    for row in rows:
        groups.setdefault((row["method"], row["log10_rho"]), []).append(row)
    return groups


def by_compression(rows: Sequence[Row], method: str) -> dict[float, list[Row]]:
    """Gather the seeds of one method by log10 ρ, ascending; the dense network comes first."""
    groups: dict[float, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row["log10_rho"]):
        if row["method"] in (method, DENSE):
            groups.setdefault(row["log10_rho"], []).append(row)
    return groups


def points(rows: Sequence[Row]) -> list[float]:
    """List the log10 ρ of all pruned rows, ascending."""
    return sorted({row["log10_rho"] for row in rows if row["method"] != DENSE})


def mean(rows: Sequence[Row], field: str = "top1_best") -> float:
    """Average a field over seeds."""
    return statistics.fmean(row[field] for row in rows)


def collapsed(seeds: Sequence[Row]) -> bool:
    """Whether a layer of some seed is empty."""
    return any(row["collapsed"] for row in seeds)


def diverged(seeds: Sequence[Row]) -> bool:
    """Whether training of some seed ended with non-finite weights."""
    return any(row["diverged"] for row in seeds)


def critical(rows: Sequence[Row], method: str) -> float | None:
    """Find log10 ρ_cr: the largest ρ of the grid up to which no seed has an empty layer.

    Args:
      rows: the rows of one network.
      method: the method to look at.

    Returns:
      log10 ρ_cr, or None where the first ρ already empties a layer or there are no rows.
    """
    last = None
    for (name, log10_rho), seeds in sorted(group_rows(rows).items(), key=lambda item: item[0][1]):
        if name == method:
            if collapsed(seeds):
                return last
            last = log10_rho
    return last


def max_rho(row: Row) -> float:
    """Compute ρ_max = N/L from a row: prunable weights over layers."""
    return row["prunable"] / len(row["kept_per_layer"])
