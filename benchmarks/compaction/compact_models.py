"""How small does `compact` make the networks of the experiments, and how exact are they?

    python -m benchmarks.compact_models                           # hours on two cores
    python -m benchmarks.compact_models --models fc vgg16 resnet20

SynFlow's masks at two compression ratios; entries and multiply-adds of an example before and after,
the largest gap of an output of random images over the largest output, and the seconds of
`compact`, compiling included. Writes compact_models.json, row by row.
"""

import dataclasses
import json
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.shared.labels import number
from benchmarks.shared.networks import Network, draw, xla_convolution
from benchmarks.shared.records import load, store
from experiments.models import MODELS, ModelName
from experiments.records.console import terminal
from experiments.records.machine import ROOT, busy_cores, line, machine, stamp
from synflow_jax import apply_masks, compact, synflow

RHOS = (10.0, 100.0)
IMAGES = 2


@dataclasses.dataclass(frozen=True)
class Config:
    """Compact the networks of the experiments."""

    models: tuple[ModelName, ...] = tuple(MODELS)
    """Which networks."""
    rounds: int = 100
    """Rounds of SynFlow."""
    out: Path = ROOT / "benchmarks" / "results"
    """Folder of the results."""


def network(name: ModelName) -> Network:
    """Choose images and classes as the experiments do; ImageNet's ResNets get smaller images."""
    size, classes = 32, 10
    if name.endswith("-tiny"):
        size, classes = 64, 200
    elif name.endswith("-imagenet"):
        size, classes = 224 if name.startswith("vgg") else 64, 1000
    shape = (28, 28, 1) if name == "fc" else (size, size, 3)
    return Network(lambda: MODELS[name](classes), shape)


def entries(tree: Any) -> int:
    """Count the entries of all leaves."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def measure(params: Any, masks: Any, apply_fn: Any, shape: tuple[int, ...]) -> dict[str, Any]:
    """Compact a network and return its row."""
    busy = busy_cores()
    start = time.perf_counter()
    small = compact(params, masks, apply_fn, shape)
    seconds = time.perf_counter() - start
    x = jax.random.normal(jax.random.key(0), (IMAGES, *shape))
    want = jax.jit(apply_fn)(apply_masks(params, masks), x)
    gap = jnp.abs(small.apply_fn(small.params, x) - want).max() / jnp.abs(want).max()
    return {
        "entries": [entries(params), entries(small.params)],
        "multiply-adds": list(small.multiply_adds),
        "lost": list(small.lost),
        "gap": float(gap),
        "seconds": seconds,
        "busy cores": busy,
    }


def show(rows: list[dict[str, Any]], console: Console) -> None:
    """Print the table."""
    table = Table("network", title="compact", box=box.SIMPLE_HEAD)
    for name in ("ρ", "entries,\nM", "left", "×", "multiply-\nadds, M", "left", "×", "gap", "s"):
        table.add_column(name, justify="right")
    for row in rows:
        cells = [f"{row['rho']:g}"]
        for before, after in (row["entries"], row["multiply-adds"]):
            cells += [number(before, 1e-6), number(after, 1e-6), number(before / after)]
        table.add_row(row["network"], *cells, f"{row['gap']:.0e}", f"{row['seconds']:.1f}")
    console.print(table)


def run(config: Config, console: Console) -> None:
    """Measure each network at each ρ, store, show."""
    where, path = machine("cpu"), config.out / "compact_models.json"
    rows = {(row["network"], row["rho"]): row for row in load(path, where)}
    console.print(line(where), highlight=False)
    for name in config.models:
        shape, (params, apply_fn) = network(name).shape, draw(network(name))
        prune = jax.jit(partial(synflow, apply_fn=apply_fn, shape=shape, rounds=config.rounds))
        with xla_convolution():
            for rho in RHOS:
                masks = jax.block_until_ready(prune(params, rho=jnp.float32(rho)))
                found = measure(params, masks, apply_fn, shape)
                names = {"network": name, "rho": rho, "rounds": config.rounds}
                rows[name, rho] = names | stamp() | found
                console.print(name, rho, json.dumps(found), highlight=False)
                store(path, where, list(rows.values()))
        jax.clear_caches()
    show(list(rows.values()), console)


def main() -> None:
    """Read the arguments and run."""
    import tyro

    warnings.simplefilter("ignore")
    run(tyro.cli(Config, prog="python -m benchmarks.compact_models"), terminal())


if __name__ == "__main__":
    main()
