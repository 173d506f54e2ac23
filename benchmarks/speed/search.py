"""How many networks of NAS-Bench-201 are scored in a second: one compile, many compiles, PyTorch?

    python -m benchmarks.search               # some minutes on two cores

The same random cells are scored in each way, without norms, by turns in one process, after a first
turn that is timed apart:

- by `flow_score` in a loop with the cell as an array argument: all cells share one compiled
  program, which runs the chosen operations only;
- the same under vmap, all cells in one call: all operations run, and one of each edge is taken;
- with the cell as a constant: a compile a network;
- in PyTorch, with a new graph for each network: in double precision, as in zero-cost-nas and
  NASLib, and in single, on one thread or all, whichever is faster.

Writes search.json.
"""

import dataclasses
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.tree_util import Partial
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.shared.records import store
from experiments.models import nas201
from experiments.records.console import terminal
from experiments.records.machine import ROOT, busy_cores, has_torch, line, machine, stamp
from synflow_jax.measure import flow_score

Way = Callable[[list[tuple[int, ...]]], list[float]]
COMPILING = "a compile a cell"


@dataclasses.dataclass(frozen=True)
class Config:
    """Time ways to score networks."""

    cells: int = 16
    """Number of cells that a turn scores."""
    compiled: int = 2
    """Number of these cells that are scored with a compile each."""
    turns: int = 3
    """How often each way is timed."""
    side: int = 32
    """Height and width of the image of ones."""
    channels: tuple[int, ...] = nas201.CHANNELS
    """Channels of the stages."""
    out: Path = ROOT / "benchmarks" / "results"
    """Folder of the results."""


def ways(config: Config) -> dict[str, Way]:
    """Build each way to score a list of cells."""
    params = nas201.initialise(jax.random.key(0), 10, config.channels)
    shape = (config.side, config.side, 3)

    def one(cell: Any) -> Any:
        return flow_score(params, Partial(nas201.network, cell), shape)

    many = jax.jit(jax.vmap(one))
    found: dict[str, Way] = {
        "one compile": lambda cells: [float(one(jnp.array(c, jnp.int32))) for c in cells],
        "one compile, vmap": lambda cells: many(jnp.array(cells, jnp.int32)).tolist(),
        COMPILING: lambda cells: [
            float(flow_score(params, partial(nas201.network, cell), shape)) for cell in cells
        ],
    }
    return found | (_torch_ways(params, config.side) if has_torch() else {})


def _torch_ways(params: nas201.Params, side: int) -> dict[str, Way]:
    import torch

    from benchmarks.peers import torch_nas201 as peer
    from benchmarks.peers.plain_torch import fastest_threads

    def way(dtype: Any) -> Way:
        own = peer.as_torch(params, dtype)
        return lambda cells: [peer.score(cell, own, side) for cell in cells]

    fastest_threads(partial(way(torch.double), [nas201.cell_of(nas201.SPACE // 2)]))
    return {"PyTorch, float64": way(torch.double), "PyTorch, float32": way(torch.float)}


def measure(config: Config) -> list[dict[str, Any]]:
    """Time all ways by turns, the first call apart, and compare their finite scores."""
    drawn = np.random.default_rng(0).integers(0, nas201.SPACE, config.cells)
    cells = [nas201.cell_of(int(number)) for number in drawn]
    found, busy = ways(config), [busy_cores()]
    lists = {way: cells[: config.compiled] if way == COMPILING else cells for way in found}
    seconds: dict[str, list[float]] = {way: [] for way in found}
    scores: dict[str, list[float]] = {}
    for _ in range(config.turns + 1):
        for way, score in found.items():
            start = time.perf_counter()
            scores[way] = score(lists[way])
            seconds[way].append(time.perf_counter() - start)
    reference = np.array(scores["one compile"])
    busy.append(busy_cores())
    return [
        {
            "way": way,
            "cells": len(lists[way]),
            "first": round(times[0], 3),
            "seconds": [round(t, 3) for t in times[1:]],
            "a second": round(len(lists[way]) / min(times[1:]), 3),
            "difference": _apart(scores[way], reference[: len(lists[way])]),
            "busy cores": busy,
        }
        for way, times in seconds.items()
    ]


def _apart(scores: list[float], reference: np.ndarray) -> float:
    """Return the largest difference where both are finite."""
    both = np.isfinite(scores) & np.isfinite(reference)
    return float(np.max(np.abs(np.array(scores)[both] - reference[both]), initial=0.0))


def show(rows: list[dict[str, Any]], console: Console) -> None:
    """Print the table."""
    table = Table("way", box=box.SIMPLE_HEAD)
    for name in ("first call, s", "cells", "cells a second"):
        table.add_column(name, justify="right")
    for row in rows:
        numbers = (f"{row['first']:.1f}", str(row["cells"]), f"{row['a second']:.2f}")
        table.add_row(row["way"], *numbers)
    console.print(table)


def main(config: Config) -> None:
    """Measure, store, show."""
    console, where = terminal(), machine(jax.default_backend())
    console.print(line(where), highlight=False)
    rows = [row | stamp() for row in measure(config)]
    store(config.out / "search.json", where, rows)
    show(rows, console)


if __name__ == "__main__":
    main(tyro.cli(Config, prog="python -m benchmarks.search", description=__doc__))
