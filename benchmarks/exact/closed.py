"""Does a network whose branches start closed still pass signal and gradient when it is pruned?

    python -m benchmarks.closed           # all networks, some twenty minutes on two cores
    python -m benchmarks.closed haiku     # networks with this in their name

ResNet-50 at full width as ImageNet's recipes have it, the last scale of every block at 0, of Flax
and of Haiku, whose head starts at 0 as well (a head of zeros is drawn before gradients are counted,
since nothing passes it in the first step); pruned by SynFlow in flow mode. Each network is measured
in a process of its own and written to benchmarks/results/closed.json at once. Haiku's needs the
package dm-haiku.
"""

import json
import sys
import time
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

from benchmarks.shared.processes import COLD, in_new_process
from benchmarks.shared.records import load, store
from experiments.models import resnet
from experiments.records.machine import line, machine, stamp
from synflow_jax import apply_masks, collapsed_layers, flow_mode, linen, synflow
from synflow_jax.flow import closed_leaves
from synflow_jax.trees import named_leaves

RESULTS = Path(__file__).parents[1] / "results" / "closed.json"
SHAPE = (64, 64, 3)
RHOS = (10, 100)
ROUNDS = 20
LIMIT = 3600.0  # seconds a network


def flax() -> tuple[Any, Any]:
    """Build ResNet-50 with closed blocks in Flax."""
    model = resnet(1000, 50, imagenet=True).clone(closed=True)
    variables = model.init(jax.random.key(0), jnp.ones((1, *SHAPE)))
    return linen.from_linen(model, variables, train=False)


def haiku() -> tuple[Any, Any]:
    """Take Haiku's own ResNet-50."""
    import haiku as hk

    model = hk.transform_with_state(lambda x, training: hk.nets.ResNet50(1000)(x, training))
    params, state = model.init(jax.random.key(0), jnp.ones((1, *SHAPE)), True)
    return params, lambda params, x: model.apply(params, state, None, x, False)[0]


NETWORKS = {"flax ResNet-50": flax, "haiku ResNet-50": haiku}


def measure(name: str) -> list[dict[str, Any]]:
    """Prune one network at each ρ; count layers without weights, and leaves with a gradient."""
    params, apply_fn = NETWORKS[name]()
    images = jax.random.normal(jax.random.key(1), (4, *SHAPE))
    across = jax.random.normal(jax.random.key(2), (4, 1000))
    slope = jax.jit(jax.grad(lambda p: jnp.vdot(apply_fn(p, images), across)))

    def drawn(leaf: Any) -> Any:
        closed = leaf.shape == (2048, 1000) and not leaf.any()
        return jax.random.normal(jax.random.key(3), leaf.shape) / 2048**0.5 if closed else leaf

    def with_gradient(params: Any) -> int:
        return sum(bool(leaf.any()) for leaf in jax.tree.leaves(slope(params)))

    started = jax.tree.map(drawn, params)
    first = {
        "closed leaves": len(closed_leaves(params, apply_fn, SHAPE)),
        "leaves": len(named_leaves(params)),
        "with gradient, dense": with_gradient(started),
    }
    rows = []
    for rho in RHOS:
        start = time.perf_counter()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            masks = synflow(params, flow_mode(apply_fn), SHAPE, rho, rounds=ROUNDS)
        seconds = round(time.perf_counter() - start, 1)
        row = {"rho": rho, "rounds": ROUNDS, **first, "empty layers": collapsed_layers(masks)}
        row["with gradient, pruned"] = with_gradient(apply_masks(started, masks))
        row["warnings"] = sorted({f"{one.category.__name__}: {one.message}" for one in caught})
        rows.append(row | {"seconds": seconds})
    return rows


def main(arguments: list[str]) -> None:
    """Run, store, print."""
    if arguments[:1] == ["--row"]:
        print(json.dumps({"rows": measure(arguments[1])}))
        return
    console, where = Console(width=110), machine("cpu")
    console.print(line(where), highlight=False)
    rows = load(RESULTS, where)
    for name in NETWORKS:
        if arguments and not any(part in name for part in arguments):
            continue
        if name.startswith("haiku") and find_spec("haiku") is None:
            console.print("dm-haiku is not installed: its network is left out")
            continue
        found = in_new_process(["benchmarks.closed", "--row", name], LIMIT, **COLD)
        new = found.get("rows", [{"failed": found.get("failed")}])
        rows = [row for row in rows if row["network"] != name]
        rows += [{"network": name, **stamp(), **row} for row in new]
        store(RESULTS, where, rows)
    console.print(table(rows))


def table(rows: list[dict[str, Any]]) -> Table:
    """Make a table of all rows."""
    columns = ("rho", "leaves", "closed leaves", "with gradient, dense", "with gradient, pruned")
    found = Table("network", *columns, "empty layers", "seconds")
    for row in rows:
        cells = [str(row.get(name, "–")) for name in columns]
        empty = str(len(row["empty layers"])) if "empty layers" in row else row.get("failed", "–")
        found.add_row(row["network"], *cells, empty, str(row.get("seconds", "–")))
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
