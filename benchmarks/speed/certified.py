"""Compare the certified schedule with the exponential one: rounds used, and collapses.

    python -m benchmarks.certified          # MLPs, under a minute on two cores
    python -m benchmarks.certified --vgg    # VGG-11 and VGG-16 as well, ten minutes more

Small MLPs are pruned on a hundred seeds to ρ_max = N/L, one weight a layer, and the VGGs for CIFAR
at ρ = 10, 1000 and N/L. A round is one scoring pass. Writes benchmarks/results/certified.json;
rows that a run does not reach stay as they are.
"""

import itertools
import json
import sys
import time
import warnings
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

import synflow_jax as sf
from experiments.models import MODELS
from experiments.records.files import replacing
from synflow_jax.linen import from_linen

RESULTS = Path(__file__).parents[1] / "results" / "certified.json"
SEEDS = 100
MLPS = ((5, 7, 6, 4), (10, 20, 20, 20, 20, 5), (20, 50, 50, 10), (16, *(16,) * 8, 4))
SCHEDULES: dict[str, dict[str, Any]] = {
    "exponential, n = 10": {"rounds": 10},
    "exponential, n = 100": {"rounds": 100},
    "certified": {"schedule": sf.certified()},
}
KEY = itemgetter("network", "rho", "schedule")


def mlp(params: list[jax.Array], x: jax.Array) -> jax.Array:
    """Apply a ReLU network without biases."""
    for kernel in params[:-1]:
        x = jax.nn.relu(x @ kernel)
    return x @ params[-1]


def draw(seed: int, widths: tuple[int, ...]) -> list[jax.Array]:
    """Draw Gaussian kernels, Var = 1/fan_in."""
    rng, pairs = np.random.default_rng(seed), itertools.pairwise(widths)
    kernels = [rng.standard_normal(shape) / np.sqrt(shape[0]) for shape in pairs]
    return [jnp.asarray(kernel, jnp.float32) for kernel in kernels]


def summary(name: str, rho: float, schedule: str, info: sf.PruneInfo) -> dict[str, Any]:
    """Describe the runs of one network, one row a run in `info`."""
    rounds, last = np.atleast_1d(info.rounds), np.atleast_2d(np.asarray(info.kept)[..., -1, :])
    flow = np.atleast_1d(np.asarray(info.log2_flow)[..., -1])
    share = np.atleast_1d(np.asarray(info.share).max(-1))
    counts = {"runs": len(rounds), "kept": sorted({int(row.sum()) for row in last})}
    counts["flow lost"] = int(np.isneginf(flow).sum())
    counts["a layer lost"] = int((last == 0).any(1).sum())
    spread = {"rounds": [int(rounds.min()), float(rounds.mean()), int(rounds.max())]}
    largest = {"largest share": float(share.max())}
    return {"network": name, "rho": rho, "schedule": schedule, **counts, **spread, **largest}


def of_mlps() -> Iterator[dict[str, Any]]:
    """Prune every MLP to one weight a layer, all seeds in one compiled call."""
    for widths in MLPS:
        params = jax.tree.map(lambda *k: jnp.stack(k), *[draw(s, widths) for s in range(SEEDS)])
        rho = sf.measure.max_compression(draw(0, widths))
        saliency = sf.synflow_saliency(mlp, widths[:1])
        for name, options in SCHEDULES.items():

            def run(p: Any, options: Any = options, s: Any = saliency, r: float = rho) -> Any:
                return sf.prune(p, s, r, **options)[1]

            start = time.perf_counter()
            info = jax.block_until_ready(jax.jit(jax.vmap(run))(params))
            row = summary("-".join(map(str, widths)), rho, name, info)
            yield row | {"seconds": time.perf_counter() - start}


def of_vggs() -> Iterator[dict[str, Any]]:
    """Prune VGG-11 and VGG-16, one seed."""
    for name in ("vgg11", "vgg16"):
        model, shape = MODELS[name](10), (32, 32, 3)
        variables = model.init(jax.random.key(0), jnp.ones((1, *shape)))
        params, apply_fn = from_linen(model, variables, train=False)
        saliency = sf.synflow_saliency(apply_fn, shape)
        for rho in (10.0, 1000.0, sf.measure.max_compression(params)):
            for schedule in ("certified", "exponential, n = 100"):
                start = time.perf_counter()
                _, info = sf.prune(params, saliency, rho, **SCHEDULES[schedule])
                row = summary(name, rho, schedule, info)
                yield row | {"seconds": time.perf_counter() - start}


def show(rows: list[dict[str, Any]], console: Console) -> None:
    """Print the rows as a table."""
    columns = ("network", "ρ", "schedule", "rounds", "flow lost", "a layer lost", "largest share")
    table = Table(*columns, "seconds")
    for row in rows:
        low, mean, high = row["rounds"]
        spread = f"{mean:.1f} ({low}–{high})" if low < high else str(low)
        lost = [f"{row[key]} of {row['runs']}" for key in ("flow lost", "a layer lost")]
        rest = [f"{row['largest share']:.3g}", f"{row['seconds']:.1f}"]
        table.add_row(row["network"], f"{row['rho']:.5g}", row["schedule"], spread, *lost, *rest)
    console.print(table)


def store(row: dict[str, Any]) -> None:
    """Store a row in the results, replacing an earlier one of its network, ρ and schedule."""
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    by_key = {KEY(one): one for one in [*known, row]}
    with replacing(RESULTS) as temporary:
        temporary.write_text(json.dumps([*by_key.values()], indent=1) + "\n")


def main() -> None:
    """Run, store, print."""
    warnings.simplefilter("ignore", sf.CollapseWarning)
    console, found = Console(), []
    chosen = [of_mlps(), of_vggs()] if "--vgg" in sys.argv[1:] else [of_mlps()]
    for row in itertools.chain(*chosen):
        found.append(row)
        store(row)
        console.print(row["network"], row["schedule"], row["rounds"], row["flow lost"])
    show(found, console)


if __name__ == "__main__":
    main()
