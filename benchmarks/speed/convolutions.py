"""Where are convolutions of one example faster as matrix products?

    python -m benchmarks.convolutions

Times the gradient, by input and kernel, of convolutions of common shapes: as XLA runs them and as
`synflow_jax.scaled.scaled` writes them, alone and inside a loop. On the CPU the library takes the
product for every convolution of one example. Writes convolutions.json.
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
from jax import lax
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.shared.records import store
from experiments.records.console import terminal
from experiments.records.machine import ROOT, busy_cores, line, machine, stamp
from synflow_jax.scaled import as_product

LAYOUT = ("NHWC", "HWIO", "NHWC")
# pixels a side, channels in, window, channels out, stride, groups
CASES = {
    "3×3, 224², 64 to 64": (224, 64, 3, 64, 1, 1),
    "7×7, 224², 3 to 64, stride 2": (224, 3, 7, 64, 2, 1),
    "3×3, 56², 64 to 64": (56, 64, 3, 64, 1, 1),
    "1×1, 56², 64 to 256": (56, 64, 1, 256, 1, 1),
    "3×3, 32², 16 to 16": (32, 16, 3, 16, 1, 1),
    "3×3, 14², 256 to 256": (14, 256, 3, 256, 1, 1),
    "3×3, 7², 512 to 512": (7, 512, 3, 512, 1, 1),
    "3×3, 112², depthwise, 32": (112, 32, 3, 32, 1, 32),
    "3×3, 14², depthwise, 384": (14, 384, 3, 384, 1, 384),
    "3×3, 56², 32 groups of 4": (56, 128, 3, 128, 1, 32),
}
WAYS = ("convolution", "product")
TURNS, IN_LOOP = 6, 4
Conv = Callable[[jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Config:
    """Time convolutions beside matrix products."""

    out: Path = ROOT / "benchmarks" / "results"
    """Folder of the results."""


def ways(case: str) -> tuple[dict[str, Conv], tuple[jax.Array, jax.Array]]:
    """Build a convolution, the matrix product that replaces it, and their arguments."""
    side, into, window, out, stride, groups = CASES[case]
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.random((1, side, side, into)), jnp.float32)
    kernel = jnp.asarray(rng.random((window, window, into // groups, out)), jnp.float32)

    def conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            "SAME",
            dimension_numbers=LAYOUT,
            feature_group_count=groups,
        )

    (eqn,) = jax.make_jaxpr(conv)(x, kernel).eqns
    return dict(zip(WAYS, (conv, partial(as_product, eqn)), strict=True)), (x, kernel)


def programs(fn: Conv, arrays: tuple[jax.Array, jax.Array]) -> dict[str, Any]:
    """Compile the gradient alone and in a loop."""
    gradient = jax.grad(lambda x, kernel: fn(x, kernel).sum(), (0, 1))

    def loop(*arrays: jax.Array) -> Any:
        def step(_: Any, now: Any) -> Any:
            return jax.tree.map(lambda a, g: a + 1e-9 * g, now, gradient(*now))

        return lax.fori_loop(0, IN_LOOP, step, arrays)

    return {
        "alone": jax.jit(gradient).lower(*arrays).compile(),
        "in a loop": jax.jit(loop).lower(*arrays).compile(),
    }


def measure(case: str) -> dict[str, Any]:
    """Time both ways by turns: the least seconds of a gradient."""
    fns, arrays = ways(case)
    runs = {
        (way, where): program
        for way, fn in fns.items()
        for where, program in programs(fn, arrays).items()
    }
    least = dict.fromkeys(runs, float("inf"))
    for _ in range(TURNS):
        for key, run in runs.items():
            start = time.perf_counter()
            jax.block_until_ready(run(*arrays))
            turns = IN_LOOP if key[1] == "in a loop" else 1
            least[key] = min(least[key], (time.perf_counter() - start) / turns)
    row = {f"{way} {where}": seconds for (way, where), seconds in least.items()}
    return {"case": case, **row, "busy cores": busy_cores(), **stamp()}


def show(rows: list[dict[str, Any]], console: Console) -> None:
    """Print the table."""
    table = Table("gradient of", title="Milliseconds", box=box.SIMPLE_HEAD)
    columns = [f"{way} {where}" for where in ("alone", "in a loop") for way in WAYS]
    for name in columns:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(row["case"], *(f"{1e3 * row[name]:.2f}" for name in columns))
    console.print(table)


def main() -> None:
    """Measure, store, show."""
    import tyro

    config, console = tyro.cli(Config, prog="python -m benchmarks.convolutions"), terminal()
    found, rows = machine("cpu"), []
    console.print(line(found))
    for case in CASES:
        rows.append(measure(case))
        store(config.out / "convolutions.json", found, rows)
        console.print(f"{case} done")
    show(rows, console)


if __name__ == "__main__":
    main()
