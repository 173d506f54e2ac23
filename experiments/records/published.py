"""The paper's own numbers, from the result arrays that its authors published."""

import csv
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments.records.machine import ROOT
from experiments.records.rows import Row

FOLDER = ROOT / "experiments" / "paper"


class Curve(NamedTuple):
    """Top-1 of the best epoch in % over log10 ρ: minimum, mean and maximum of the runs."""

    log10_rho: list[float]
    low: list[float]
    mean: list[float]
    high: list[float]


class Panel(NamedTuple):
    """One network on one data set: a title, our rows and the paper's curves by method."""

    title: str
    rows: list[Row]
    paper: Mapping[str, Curve]


def table(name: str) -> list[dict[str, Any]]:
    """Read a CSV file of the paper's numbers; numeric fields become floats."""
    with (FOLDER / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return [{key: _number(text) for key, text in row.items()} for row in csv.DictReader(file)]


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def curves(name: str, model: str, dataset: str) -> dict[str, Curve]:
    """Read the paper's curves for one network and data set, by method; empty if it has none.

    Args:
      name: fig1 or fig6.
      model: our name of the network. The paper's "WideResNet-18" is a ResNet-18 (its basic block
        ignores the width); its runs are stored as resnet18.
      dataset: our name of the data set.

    Returns:
      A curve for each of the paper's methods.
    """
    rows = [row for row in table(name) if (row["model"], row["dataset"]) == (model, dataset)]
    methods = dict.fromkeys(row["method"] for row in rows)
    return {method: _curve([row for row in rows if row["method"] == method]) for method in methods}


def _curve(rows: Sequence[dict[str, Any]]) -> Curve:
    ordered = sorted(rows, key=lambda row: row["log10_rho"])
    return Curve(*([row[name] for row in ordered] for name in Curve._fields))
