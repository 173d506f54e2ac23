"""Is one call under vmap as fast as separate runs, over 10 seeds and over 13 values of ρ?

    python -m benchmarks.vmapped              # fc and ResNet-20, some minutes on two cores
    python -m benchmarks.vmapped --rounds 10

Both ways call the same jitted function, which is compiled before it is timed. They run by turns, in
a new process for each network and axis. The masks of both must be equal but for rounding: their
overlap is in the rows. Writes vmapped.json, row by row.
"""

import dataclasses
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.shared.processes import COLD, in_new_process
from benchmarks.shared.records import load, store, summary
from experiments.records.console import terminal
from experiments.records.machine import ROOT, busy_cores, line, machine, stamp

SEEDS = 10
RHOS = tuple(10 ** (i / 4) for i in range(13))
AXES = ("seeds", "rho")


@dataclasses.dataclass(frozen=True)
class Config:
    """Time vmap against separate runs."""

    networks: tuple[str, ...] = ("fc", "resnet20")
    """Which networks."""
    rounds: int = 100
    """Rounds of a run."""
    turns: int = 3
    """How often each way is timed."""
    limit: float = 600.0
    """Seconds after which a measurement is stopped."""
    out: Path = ROOT / "benchmarks" / "results"
    """Folder of the results."""


def ways(name: str, axis: str, rounds: int) -> dict[str, Any]:
    """Build both ways to prune along an axis; one returns stacked masks, the other a list."""
    import jax
    import jax.numpy as jnp

    from benchmarks.peers import RHO
    from benchmarks.shared.networks import draw
    from benchmarks.speed.timed_networks import NETWORKS, as_pruned
    from synflow_jax import synflow

    drawn = [draw(NETWORKS[name], seed) for seed in range(SEEDS if axis == "seeds" else 1)]
    params, shape = [one for one, _ in drawn], NETWORKS[name].shape
    apply_fn = as_pruned(name, drawn[0][1])

    def prune(p: Any, rho: Any) -> Any:
        return synflow(p, apply_fn, shape, rho, rounds=rounds)

    if axis == "seeds":
        pairs = [(one, jnp.float32(RHO)) for one in params]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params), jnp.float32(RHO)
        many = jax.jit(jax.vmap(prune, (0, None)))
    else:
        pairs = [(params[0], jnp.float32(rho)) for rho in RHOS]
        stacked = params[0], jnp.array(RHOS, jnp.float32)
        many = jax.jit(jax.vmap(prune, (None, 0)))
    single = jax.jit(prune)
    return {
        "vmap": lambda: jax.block_until_ready(many(*stacked)),
        "separate": lambda: [jax.block_until_ready(single(*pair)) for pair in pairs],
    }


def overlap(stacked: Any, separate: list[Any]) -> float:
    """Return the least intersection over union of the masks of all runs."""
    import jax
    import numpy as np

    found = []
    for i, masks in enumerate(separate):
        pairs = list(zip(jax.tree.leaves(stacked), jax.tree.leaves(masks), strict=True))
        both = sum(int(np.sum(np.asarray(a[i]) & np.asarray(b))) for a, b in pairs)
        either = sum(int(np.sum(np.asarray(a[i]) | np.asarray(b))) for a, b in pairs)
        found.append(both / either)
    return min(found)


def measure(name: str, axis: str, rounds: int, turns: int) -> dict[str, Any]:
    """Time both ways by turns."""
    from benchmarks.shared.networks import xla_convolution

    busy, first = [busy_cores()], {}
    with xla_convolution():
        runs, results = ways(name, axis, rounds), {}
        for way, run in runs.items():
            start = time.perf_counter()
            results[way] = run()
            first[way] = time.perf_counter() - start
    times: dict[str, list[float]] = {way: [] for way in runs}
    for _ in range(turns):
        for way, run in runs.items():
            start = time.perf_counter()
            run()
            times[way].append(time.perf_counter() - start)
    row: dict[str, Any] = {way: summary(found) for way, found in times.items()}
    row["ratio"] = row["separate"]["best"] / row["vmap"]["best"]
    row["overlap"] = overlap(results["vmap"], results["separate"])
    return row | {"first": first, "busy cores": [*busy, busy_cores()]}


def show(rows: list[dict[str, Any]], console: Console) -> None:
    """Print the table."""
    table = Table("network", "over", "rounds", title="vmap", box=box.SIMPLE_HEAD)
    for name in ("vmap s", "separate s", "times as fast"):
        table.add_column(name, justify="right")
    for row in rows:
        cells = [row.get("failed", "")]
        if "failed" not in row:
            cells = [f"{row[way]['best']:.3f}" for way in ("vmap", "separate")]
            cells.append(f"{row['ratio']:.2f}")
        many = f"{SEEDS} seeds" if row["axis"] == "seeds" else f"{len(RHOS)} values of ρ"
        table.add_row(row["network"], many, str(row["rounds"]), *cells)
    console.print(table)


def run(config: Config, console: Console) -> None:
    """Measure each network and axis, store, show."""
    where, path = machine("cpu"), config.out / "vmapped.json"
    rows = {(row["network"], row["axis"]): row for row in load(path, where)}
    console.print(line(where), highlight=False)
    for name in config.networks:
        for axis in AXES:
            arguments = ["--one", name, axis, str(config.rounds), str(config.turns)]
            env = COLD | {"JAX_PLATFORMS": "cpu"}
            found = in_new_process(["benchmarks.speed.vmapped", *arguments], config.limit, **env)
            names = {"network": name, "axis": axis, "rounds": config.rounds}
            rows[name, axis] = names | stamp() | found
            console.print(name, axis, found.get("failed", "done"))
            store(path, where, list(rows.values()))
    show(list(rows.values()), console)


def main() -> None:
    """Read the arguments and run; with --one, measure one row in this process."""
    if sys.argv[1:2] == ["--one"]:
        warnings.simplefilter("ignore")
        name, axis, rounds, turns = sys.argv[2:]
        print(json.dumps(measure(name, axis, int(rounds), int(turns))))
        return
    import tyro

    run(tyro.cli(Config, prog="python -m benchmarks.vmapped"), terminal())


if __name__ == "__main__":
    main()
