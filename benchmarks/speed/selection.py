"""How long does it take to keep the best of 14.7 million scores, beside sorts and a copy?

    python -m benchmarks.selection               # about a minute on two cores
    python -m benchmarks.selection --device gpu

The scores have the shapes of VGG-16's kernels, and 1 in 100 is kept. Ours returns masks, with ties
broken; the others only find the order or the threshold, of scores that already lie in one array.
All run by turns in one process. Writes selection_cpu.json (or selection_gpu.json). Without PyTorch
its row is left out.
"""

import dataclasses
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.peers import RHO
from benchmarks.peers.floor import copy_bandwidth
from benchmarks.peers.naive_jax import all_kept
from benchmarks.shared.records import store, summary
from benchmarks.speed.timed_networks import loaded
from experiments.records.console import terminal
from experiments.records.machine import ROOT, busy_cores, cores, has_torch, line, machine, stamp
from synflow_jax.selection import select

BUDGET = 15.0  # seconds of turns after which a way stops, but not before its second turn
PLATFORMS = {"cpu": "cpu", "gpu": "cuda"}


@dataclasses.dataclass(frozen=True)
class Config:
    """Time exact selection beside sorts."""

    device: Literal["cpu", "gpu"] = "cpu"
    """Where to compute."""
    turns: int = 20
    """The largest number of turns of a way."""
    network: str = "vgg16"
    """Whose shapes the scores have."""
    out: Path = ROOT / "benchmarks" / "results"
    """Folder of the results."""


def draw_scores(network: str) -> list[np.ndarray]:
    """Draw squared normal numbers in the shapes of a network's kernels."""
    rng = np.random.default_rng(0)
    shapes = [mask.shape for mask in all_kept(loaded(network)[0]).values()]
    return [np.square(rng.standard_normal(shape, np.float32)) for shape in shapes]


def ours(scores: list[np.ndarray], count: int) -> Callable[[], Any]:
    """Select leaf by leaf, with the masks of a first round."""
    leaves = [jnp.asarray(score) for score in scores]
    kept = [jnp.ones(score.shape, bool) for score in scores]
    run = jax.jit(select)
    return lambda: run(leaves, kept, jnp.int32(count))


def sorts(flat: np.ndarray, count: int) -> dict[str, Callable[[], Any]]:
    """List the sorts of JAX."""
    array = jnp.asarray(flat)
    fns = {
        "jnp.sort": jnp.sort,
        "jnp.argsort": jnp.argsort,
        "lax.top_k": lambda x: lax.top_k(x, count),
    }
    runs = {name: jax.jit(fn) for name, fn in fns.items()}
    return {name: lambda run=run: run(array) for name, run in runs.items()}


def kthvalue(flat: np.ndarray, count: int, device: str) -> Callable[[], Any]:
    """Find the threshold as a PyTorch loop does."""
    import torch

    torch.set_num_threads(cores())
    array = torch.from_numpy(flat).to("cuda" if device == "gpu" else "cpu")

    def run() -> None:
        torch.kthvalue(array, len(flat) - count)
        if array.is_cuda:
            torch.cuda.synchronize()

    return run


def measure(config: Config) -> list[dict[str, Any]]:
    """Time all ways by turns."""
    scores = draw_scores(config.network)
    flat = np.concatenate([score.ravel() for score in scores])
    count = math.ceil(len(flat) / RHO)
    runs = {"ours": ours(scores, count), **sorts(flat, count)}
    if has_torch():
        runs["torch.kthvalue"] = kthvalue(flat, count, config.device)
    busy = [busy_cores()]
    for run in runs.values():
        jax.block_until_ready(run())
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(config.turns):
        for name, run in runs.items():
            if len(times[name]) < 2 or sum(times[name]) < BUDGET:
                start = time.perf_counter()
                jax.block_until_ready(run())
                times[name].append(time.perf_counter() - start)
    copy = {"best": 2 * flat.nbytes / copy_bandwidth(config.device)}
    busy.append(busy_cores())
    found = {name: summary(seconds) for name, seconds in times.items()} | {"a copy": copy}
    common = {"scores": len(flat), "kept": count, "busy cores": busy, **stamp()}
    least = found["ours"]["best"]
    return [
        {"way": name, **row, "over ours": row["best"] / least, **common}
        for name, row in found.items()
    ]


def show(rows: list[dict[str, Any]], console: Console) -> None:
    """Print the table."""
    title = f"{rows[0]['kept']:,} of {rows[0]['scores']:,} scores"
    table = Table("way", title=title, box=box.SIMPLE_HEAD)
    for name in ("ms, best", "median", "over ours"):
        table.add_column(name, justify="right")
    for row in rows:
        median = f"{1e3 * row['median']:.2f}" if "median" in row else ""
        table.add_row(row["way"], f"{1e3 * row['best']:.2f}", median, f"{row['over ours']:.3g}")
    console.print(table)


def main() -> None:
    """Measure, store, show."""
    import tyro

    config = tyro.cli(Config, prog="python -m benchmarks.selection")
    jax.config.update("jax_platforms", PLATFORMS[config.device])
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    console, where = terminal(), machine(config.device)
    console.print(line(where), highlight=False)
    rows = measure(config)
    store(config.out / f"selection_{config.device}.json", where, rows)
    show(rows, console)


if __name__ == "__main__":
    main()
