"""Do time and memory grow in proportion to the weights?

    python -m benchmarks.growth                               # 10⁵ to 10⁸, some minutes
    python -m benchmarks.growth --sizes 1e9                   # needs about 12 GB and many minutes
    python -m benchmarks.growth --sizes 1e9 --dtype bfloat16

Plain MLPs of ten square layers are pruned to ρ = 100 in ten rounds, each size in a process of its
own: seconds of the first call and of a second one, what the compiled program asks for (arguments,
results and temporaries), and the peak of the process's resident memory, beside what it had before
the first call. Writes growth.json, row by row, and growth.png.
"""

import dataclasses
import json
import resource
import sys
import time
import warnings
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.shared.processes import COLD, in_new_process
from benchmarks.shared.records import load, store
from experiments.records.console import terminal
from experiments.records.files import replacing
from experiments.records.machine import ROOT, busy_cores, line, machine, stamp

ROUNDS = 10
LIMIT = 7200.0  # seconds a size
Dtype = Literal["float32", "bfloat16"]


@dataclasses.dataclass(frozen=True)
class Config:
    """Measure how time and memory grow with the network."""

    sizes: tuple[float, ...] = (1e5, 1e6, 1e7, 1e8)
    """Weights of each network."""
    dtype: Dtype = "float32"
    """Dtype of the weights."""
    once: bool = False
    """Time the first call only."""
    out: Path = ROOT / "benchmarks" / "results"
    """Folder of the results."""


def resident() -> int:
    """Return the bytes of resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def peak() -> int:
    """Return the largest number of bytes that have been resident in this process."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure(size: float, dtype: str, once: bool) -> dict[str, Any]:
    """Prune one MLP in this process."""
    import jax
    import jax.numpy as jnp

    from benchmarks.peers import RHO
    from benchmarks.speed.timed_networks import mlp
    from synflow_jax import synflow

    params, apply_fn, shape = mlp(size, jnp.dtype(dtype))
    jax.block_until_ready(params)

    def prune() -> tuple[float, Any]:
        start = time.perf_counter()
        masks = jax.block_until_ready(synflow(params, apply_fn, shape, RHO, rounds=ROUNDS))
        return time.perf_counter() - start, masks

    before, drawn = resident(), peak()
    found: dict[str, Any] = {"busy cores": [busy_cores()], "resident before": before}
    found["first"], masks = prune()
    kernels = [leaf for leaf in jax.tree.leaves(masks) if leaf.ndim > 1]
    found |= {"kept": sum(int(jnp.sum(leaf)) for leaf in kernels)}
    found |= {"weights": sum(leaf.size for leaf in kernels), "peak": peak(), "peak drawing": drawn}
    if not once:
        del masks
        found["again"] = min(prune()[0] for _ in range(2))
    compiled = jax.jit(lambda p: synflow(p, apply_fn, shape, RHO, rounds=ROUNDS)).lower(params)
    sizes: Any = compiled.compile().memory_analysis()
    for name in ("argument", "output", "temp"):
        found[name] = int(getattr(sizes, f"{name}_size_in_bytes"))
    return found


def show(rows: list[dict[str, Any]], console: Console) -> None:
    """Print the table."""
    table = Table("weights", "dtype", title="Ten rounds to ρ = 100", box=box.SIMPLE_HEAD)
    for name in ("first s", "again s", "ns a weight and round", "temporaries", "peak GB"):
        table.add_column(name, justify="right")
    table.caption = "temporaries over the bytes of the weights; peak: resident memory"
    for row in rows:
        cells = [row.get("failed", "")]
        if "failed" not in row:
            again = row.get("again", row["first"])
            cells = [f"{row['first']:.2f}", f"{again:.3f}"]
            cells.append(f"{1e9 * again / row['weights'] / ROUNDS:.2f}")
            cells += [f"{row['temp'] / row['argument']:.2f}", f"{row['peak'] / 1e9:.2f}"]
        table.add_row(f"{row['size']:.0e}", row["dtype"], *cells)
    console.print(table)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw seconds and bytes against weights, both axes logarithmic, beside straight growth."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    good = sorted((row for row in rows if "failed" not in row), key=lambda row: row["weights"])
    spines: dict[Any, Any] = {"axes.spines.top": False, "axes.spines.right": False}
    with mpl.rc_context({"font.size": 10, **spines}):
        figure = Figure(figsize=(9, 4), layout="constrained")
        left, right = figure.subplots(1, 2)
        for dtype, marker in (("float32", "o"), ("bfloat16", "s")):
            some = [row for row in good if row["dtype"] == dtype]
            _line(left, some, f"{dtype}", marker, "#0072B2", lambda r: r.get("again", r["first"]))
            name = f"{dtype}: the program asks for"
            asked = lambda r: r["argument"] + r["output"] + r["temp"]
            _line(right, some, name, marker, "#0072B2", asked)
            grown = lambda r: r["peak"] - r["resident before"] + r["argument"]
            _line(right, some, f"{dtype}: the process grew by", marker, "#D55E00", grown)
        left.set(ylabel="seconds of ten rounds", title="time")
        right.set(ylabel="bytes, weights included", title="memory")
        for axes in (left, right):
            _straight(axes, good)
            axes.set(xscale="log", yscale="log", xlabel="weights")
            axes.grid(alpha=0.25)
            axes.legend(frameon=False, fontsize=9)
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=160)


def _line(axes: Any, rows: list[Any], label: str, marker: str, color: str, value: Any) -> None:
    if rows:
        points = [row["weights"] for row in rows], [value(row) for row in rows]
        axes.plot(*points, marker=marker, color=color, label=label)


def _straight(axes: Any, rows: list[Any]) -> None:
    """Draw growth in proportion to the weights, through the last point of the first line."""
    if axes.lines:
        x, y = axes.lines[0].get_data()
        slope, ends = float(y[-1]) / float(x[-1]), [rows[0]["weights"], rows[-1]["weights"]]
        axes.plot(ends, [slope * end for end in ends], ":", color="black", label="∝ weights")


def run(config: Config, console: Console) -> None:
    """Measure each size, store it, show all."""
    where, path = machine("cpu"), config.out / "growth.json"
    rows = {(row["size"], row["dtype"]): row for row in load(path, where)}
    console.print(line(where), highlight=False)
    for size in config.sizes:
        arguments = ["--one", str(size), config.dtype, str(int(config.once))]
        env = COLD | {"JAX_PLATFORMS": "cpu"}
        found = in_new_process(["benchmarks.speed.growth", *arguments], LIMIT, **env)
        rows[size, config.dtype] = {"size": size, "dtype": config.dtype, **stamp(), **found}
        console.print(f"{size:.0e}", config.dtype, found.get("failed", "done"))
        store(path, where, [rows[key] for key in sorted(rows)])
    found = [rows[key] for key in sorted(rows)]
    show(found, console)
    draw(found, path.with_suffix(".png"))


def main() -> None:
    """Read the arguments and run; with --one, measure one size in this process."""
    if sys.argv[1:2] == ["--one"]:
        warnings.simplefilter("ignore")
        size, dtype, once = sys.argv[2:]
        print(json.dumps(measure(float(size), dtype, once == "1")))
        return
    import tyro

    run(tyro.cli(Config, prog="python -m benchmarks.growth"), terminal())


if __name__ == "__main__":
    main()
