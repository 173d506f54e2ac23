"""How much faster is a network after `compact`? Dense, masked and compact, by turns.

    python -m benchmarks.compact                     # some twenty minutes on two cores
    python -m benchmarks.compact --networks vgg16 --rhos 100
    python -m benchmarks.compact --draw              # measure nothing, draw the stored rows

Networks for CIFAR-10 images (fc: digits of 28 × 28), pruned by SynFlow at initialisation; inference
and a training step (cross-entropy, BatchNorm in training mode, SGD with momentum under keep_masks)
on one batch, compiled before they are timed. "masked" is the network at whole shapes with its
masks, "dense" the same without. Convolutions are XLA's own, as in any Flax network, or matrix
products, which are faster on CPUs. Each network is measured in a new process. Writes compact.json,
row by row, and compact.png.
"""

import contextlib
import dataclasses
import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.compaction.compact_table import KINDS, Row, draw, ratios, table, which
from benchmarks.shared.processes import COLD, in_new_process
from benchmarks.shared.records import load, store, summary
from experiments.records.console import terminal
from experiments.records.machine import ROOT, busy_cores, line, machine, stamp


@dataclasses.dataclass(frozen=True)
class Config:
    """Time dense, masked and compact networks."""

    networks: tuple[str, ...] = ("fc", "vgg16", "resnet18", "resnet50")
    """Which networks."""
    convolutions: tuple[str, ...] = ("xla", "product")
    """Kinds of convolution, xla or product; fc has none and is timed once."""
    rhos: tuple[float, ...] = (10, 31.6, 100, 316, 1000)
    """Compression ratios."""
    batch: int = 32
    """Examples of a batch."""
    turns: int = 5
    """How often each is timed."""
    limit: float = 1800.0
    """Seconds after which a measurement is stopped."""
    device: str = "cpu"
    """Where: cpu or gpu."""
    draw: bool = False
    """Measure nothing; draw the stored rows."""
    out: Path = ROOT / "benchmarks" / "results"
    """Folder of the results."""


class Contender:
    """One form of a network: its compiled inference and training step, its size and its times."""

    def __init__(self, params: Any, masks: Any, apply_fn: Any, loss: Any, batch: Any) -> None:
        import jax
        import optax

        from synflow_jax import keep_masks

        tx = optax.sgd(0.01, momentum=0.9)
        tx = tx if masks is None else keep_masks(tx, masks)

        def step(params: Any, state: Any, x: Any, labels: Any) -> Any:
            (_, statistics), grads = jax.value_and_grad(loss, has_aux=True)(params, x, labels)
            updates, state = tx.update(grads, state, params)
            return {**optax.apply_updates(params, updates), **statistics}, state

        state, (x, labels) = tx.init(params), batch
        begin = time.perf_counter()
        infer = jax.jit(apply_fn).lower(params, x).compile()
        train = jax.jit(step).lower(params, state, x, labels).compile()
        self.runs: dict[str, Callable[[], Any]] = {
            "infer": lambda: jax.block_until_ready(infer(params, x)),
            "train": lambda: jax.block_until_ready(train(params, state, x, labels)),
        }
        leaves = jax.tree.leaves(params)
        self.row: Row = {
            "entries": sum(leaf.size for leaf in leaves),
            "bytes": sum(leaf.nbytes for leaf in leaves),
            "compile": time.perf_counter() - begin,
            "temporaries": getattr(train.memory_analysis(), "temp_size_in_bytes", None),
        }
        self.times: dict[str, list[float]] = {kind: [] for kind in KINDS}
        self.turn()  # the first turn is not counted
        self.times = {kind: [] for kind in KINDS}

    def turn(self) -> None:
        """Run both programs once."""
        for kind, run in self.runs.items():
            begin = time.perf_counter()
            run()
            self.times[kind].append(time.perf_counter() - begin)


def contenders(name: str, rhos: list[float], count: int) -> dict[tuple[str, float], Contender]:
    """Build every form of a network."""
    import jax
    import jax.numpy as jnp
    import optax

    import synflow_jax as sf
    from experiments.models import MODELS

    model, shape = MODELS[name](10), (28, 28, 1) if name == "fc" else (32, 32, 3)
    keys = jax.random.split(jax.random.key(0), 3)
    params = model.init(keys[0], jnp.ones((1, *shape)))
    batch = jax.random.normal(keys[1], (count, *shape)), jax.random.randint(keys[2], count, 0, 10)

    def apply_fn(params: Any, x: Any) -> Any:
        return model.apply(params, x, train=False)

    def loss(params: Any, x: Any, labels: Any) -> Any:
        kept = [collection for collection in params if collection != "params"]
        logits, statistics = model.apply(params, x, train=True, mutable=kept)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), statistics

    def prunable(path: str, leaf: Any) -> bool:
        return path.startswith("params/") and sf.plan.is_prunable(path, leaf)

    found = {("dense", 1.0): Contender(params, None, apply_fn, loss, batch)}
    for rho in rhos:
        masks = sf.synflow(params, apply_fn, shape, rho, prunable=prunable)
        pruned = sf.apply_masks(params, masks)
        if rho == rhos[0]:  # its time does not depend on which weights are zero
            found["masked", rho] = Contender(pruned, masks, apply_fn, loss, batch)
        begin = time.perf_counter()
        small = sf.compact(params, masks, apply_fn, shape)
        seconds = time.perf_counter() - begin
        one = Contender(small.params, small.masks, small.apply_fn, small.wrap(loss), batch)
        gap = small.apply_fn(small.params, batch[0]) - apply_fn(pruned, batch[0])
        scale = jnp.abs(apply_fn(pruned, batch[0])).max()
        for whole in (("dense", 1.0), ("masked", rhos[0])):
            found[whole].row["multiply_adds"] = small.multiply_adds[0]
        one.row |= {"multiply_adds": small.multiply_adds[1], "compact": seconds}
        found["compact", rho] = one
        one.row["gap"] = float(jnp.abs(gap).max() / jnp.maximum(scale, 1e-30))
        one.row["lost"] = list(small.lost)
    return found


def measure(name: str, kind: str, batch: str, turns: str, *rhos: str) -> Row:
    """Time all forms of a network by turns."""
    from benchmarks.shared.networks import xla_convolution

    busy = [busy_cores()]
    with xla_convolution() if kind == "xla" else contextlib.nullcontext():
        found = contenders(name, list(map(float, rhos)), int(batch))
    for _ in range(int(turns)):
        for one in found.values():
            one.turn()
    busy.append(busy_cores())
    rows = [
        {"form": form, "rho": rho, **one.row, **{k: summary(t) for k, t in one.times.items()}}
        for (form, rho), one in found.items()
    ]
    return {"rows": rows, "busy cores": busy}


def run(config: Config, console: Console) -> None:
    """Measure each network, store, show."""
    where, path = machine(config.device), config.out / "compact.json"
    stored = load(path, where)
    pairs = [
        (name, kind)
        for name in config.networks
        for kind in (config.convolutions if name != "fc" else ("product",))
    ]
    for name, kind in [] if config.draw else pairs:
        rest = [config.batch, config.turns, *config.rhos]
        arguments = ["--one", name, kind, *map(str, rest)]
        env = COLD | {"JAX_PLATFORMS": {"gpu": "cuda"}.get(config.device, config.device)}
        found = in_new_process(["benchmarks.compaction.compact", *arguments], config.limit, **env)
        head = {"network": name, "convolution": kind, "batch": config.batch} | stamp()
        rows = [{**row, "busy cores": found["busy cores"]} for row in found.get("rows", [found])]
        stored = [row for row in stored if which(row) != (name, kind)]
        stored += [head | row for row in rows]
        console.print(name, kind, found.get("failed", "done"))
        store(path, where, ratios(stored))
    console.print(line(where), highlight=False)
    console.print(table(stored))
    if stored:
        draw(stored, path.with_suffix(".png"))


def main() -> None:
    """Read the arguments and run; with --one, measure one network in this process."""
    import tyro

    if sys.argv[1:2] == ["--one"]:
        warnings.simplefilter("ignore")
        print(json.dumps(measure(*sys.argv[2:])))
        return
    config = tyro.cli(Config, prog="python -m benchmarks.compact", description=__doc__)
    run(config, terminal())


if __name__ == "__main__":
    main()
