"""From which density on is a sparse product faster than the dense one?

    python -m benchmarks.sparse                # some ten minutes
    python -m benchmarks.sparse --device gpu   # with the Pallas kernel, without SciPy

The product x @ w of a batch with a pruned matrix, in float32, is computed densely; by BCOO and BCSR
of jax.experimental.sparse; by SciPy's CSR, on one core; and, where whole blocks are pruned, by
`to_blocks` and, on a GPU, by the Pallas kernel of benchmarks/sparse/block_sparse.py. All ways of
one shape, batch and density run by turns, and the least time of each counts. The dense product is
the same at every density: the least of all its times counts. A ratio is the dense time over
another's. Masks are drawn by `random`, of single weights or with pattern=blocks(b): the time
depends far more on how many weights are kept than on which.

Left out: what would need more than a gigabyte beside its arguments (BCOO and BCSR hold a product
for every kept weight and example), and blocks so large that one block alone is twice the density or
more. Writes sparse_cpu.json and sparse_cpu.png.
"""

import dataclasses
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.sparse import BCSR
from rich.console import Console

from benchmarks.shared.records import store
from benchmarks.sparse.block_sparse import pallas_product
from benchmarks.sparse.products_table import draw, show
from experiments.records.console import terminal
from experiments.records.machine import ROOT, busy_cores, line, machine, stamp
from synflow_jax import random
from synflow_jax.files import to_bcoo, to_blocks, to_csr
from synflow_jax.plan import blocks, unstructured

SHAPES = (512, 512), (2048, 2048), (4096, 1024)
BATCHES = 1, 32, 256
DENSITIES = 1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.001
SIZES = 32, 64, 128
ROOM = 2**30  # bytes
PASSES = 4  # over all densities: a disturbance of seconds does not slow all of them
# In a pass: seconds of a turn, the least and the most turns, seconds of all turns.
TURN, LEAST, MOST, ALL = 0.002, 2, 15, 0.3
Call = Callable[[], Any]


@dataclasses.dataclass(frozen=True)
class Config:
    """Time sparse products beside dense ones."""

    device: Literal["cpu", "gpu"] = "cpu"
    """Where JAX runs."""
    out: Path = ROOT / "benchmarks" / "results"
    """Folder of the results."""


@cache
def masks_of(shape: tuple[int, int], size: int) -> Any:
    """Compile the masks of one pattern for any density."""
    outline = {"w": jnp.zeros(shape)}
    pattern = blocks(size) if size > 1 else unstructured
    return jax.jit(lambda rho: random(jax.random.key(0), outline, rho, pattern=pattern)["w"])


def pruned(shape: tuple[int, int], size: int, density: float) -> tuple[np.ndarray, np.ndarray]:
    """Draw a matrix and its mask."""
    w = np.random.default_rng(0).standard_normal(shape, np.float32)
    mask = np.array(masks_of(shape, size)(jnp.float32(1 / density)))
    mask[0, 0] &= density < 1  # a leaf that is not pruned at all would stay dense
    return w, mask


def waiting(fn: Callable[..., Any], *arrays: Any) -> Call:
    """Compile a function; return a call that waits for its result."""
    compiled = jax.jit(fn).lower(*arrays).compile()
    return lambda: jax.block_until_ready(compiled(*arrays))


def contenders(
    shape: tuple[int, int], batch: int, density: float, device: str
) -> dict[str, tuple[Call, float]]:
    """Build each way to compute the product, with the density of its matrix."""
    x = jnp.asarray(np.random.default_rng(1).standard_normal((batch, shape[0]), np.float32))
    w, mask = pruned(shape, 1, density)
    there, kept = float(mask.mean()), int(mask.sum())
    ways = {"dense": (waiting(jnp.matmul, x, jnp.asarray(w * mask)), there)}
    if 4 * kept * batch <= ROOM:
        sparse, turned = to_bcoo([w, w.T], [mask, mask.T])
        ways["BCOO"] = waiting(lambda x, w: x @ w, x, sparse), there
        ways["BCSR"] = waiting(lambda x, w: (w @ x.T).T, x, BCSR.from_bcoo(turned)), there
    if device == "cpu":
        (csr,) = to_csr([w.T], [mask.T])
        rows = np.ascontiguousarray(np.asarray(x).T)
        ways["SciPy CSR"] = (lambda: csr @ rows), there
    for size in SIZES:
        ways |= _of_blocks(x, shape, size, density, device)
    return ways


def _of_blocks(
    x: jax.Array, shape: tuple[int, int], size: int, density: float, device: str
) -> dict[str, tuple[Call, float]]:
    w, mask = pruned(shape, size, density)
    there = float(mask.mean())
    if there >= 2 * density:
        return {}
    (kept,) = to_blocks([w], [mask], blocks(size))
    ways = {f"blocks {size}": (waiting(lambda x, w: x @ w, x, kept), there)}
    if device == "gpu":
        ways[f"Pallas {size}"] = waiting(pallas_product, x, kept), there
    return ways


def least(ways: dict[str, Call]) -> dict[str, float]:
    """Time all ways by turns of several calls; return the least seconds of a call."""
    calls: dict[str, int] = {}
    turns: dict[str, int] = {}
    for name, call in ways.items():
        call()
        seconds = _timed(call, 1)
        calls[name] = max(1, round(TURN / seconds))
        turns[name] = min(MOST, max(LEAST, round(ALL / seconds / calls[name])))
    found: dict[str, float] = {}
    for turn in range(MOST):
        for name, call in ways.items():
            if turn < turns[name]:
                seconds = _timed(call, calls[name])
                found[name] = min(found.get(name, seconds), seconds)
    return found


def _timed(call: Call, count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count


def measure(shape: tuple[int, int], batch: int, device: str = "cpu") -> list[dict[str, Any]]:
    """Time all ways of one product at all densities; return a row for each density."""
    ways = {density: contenders(shape, batch, density, device) for density in DENSITIES}
    rows = [{"shape": list(shape), "batch": batch, "density": density} for density in DENSITIES]
    busy = [busy_cores(0.1)]
    for _ in range(PASSES):
        for row, every in zip(rows, ways.values(), strict=True):
            found = least({name: call for name, (call, _) in every.items()})
            before = row.setdefault("seconds", found)
            row["seconds"] = {name: min(before[name], one) for name, one in found.items()}
    busy.append(busy_cores(0.1))
    dense = min(row["seconds"]["dense"] for row in rows)
    for row, every in zip(rows, ways.values(), strict=True):
        row["kept"] = {name: there for name, (_, there) in every.items()}
        others = {name: one for name, one in row["seconds"].items() if name != "dense"}
        row["ratios"] = {name: dense / seconds for name, seconds in others.items()}
        row |= {"busy cores": busy, **stamp()}
    return rows


def run(config: Config, console: Console) -> None:
    """Measure, store, show."""
    found, rows = machine(config.device), []
    path = config.out / f"sparse_{config.device}.json"
    console.print(line(found))
    for shape in SHAPES:
        for batch in BATCHES:
            rows += measure(shape, batch, config.device)
            store(path, found, rows)
            console.print("×".join(map(str, shape)), batch, "done")
    show(rows, console)
    draw(rows, path.with_suffix(".png"))


def main() -> None:
    """Read the arguments and run."""
    import tyro

    config = tyro.cli(Config, prog="python -m benchmarks.sparse")
    jax.config.update("jax_platforms", {"cpu": "cpu", "gpu": "cuda"}[config.device])
    run(config, terminal())
