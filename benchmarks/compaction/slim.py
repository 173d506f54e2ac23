"""How accurate is a network made by `slim`, beside one that is narrower everywhere?

    python -m benchmarks.slim      # twenty minutes on two busy cores; needs Fashion-MNIST in TFDS

A plain network of six convolutions, slimmed at initialisation to 1/ρ of its multiply-adds, by flow
and by magnitude, across all layers and the same share of each; with the weights as they were, and
scaled to the smaller number of inputs of each unit; and the same network with all widths scaled to
fit the same budget, newly drawn. All are trained alike. Writes slim.json, row by row, and prints
the means.
"""

import dataclasses
import json
from pathlib import Path
from statistics import fmean
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

import synflow_jax as sf
from benchmarks.shared.records import load as stored
from benchmarks.shared.records import store
from experiments.data.dataset import load
from experiments.records.console import terminal
from experiments.records.machine import ROOT, machine, stamp
from synflow_jax import linen

WIDTHS = (32, 32, 64, 64, 128, 128)
SIDES = (28, 28, 14, 14, 7, 7)
MAGNITUDE, EVEN, SCALED = " by magnitude", ", layerwise", ", scaled"
FORMS = (
    "slim",
    f"slim{SCALED}",
    f"slim{EVEN}",
    f"slim{EVEN}{SCALED}",
    f"slim{MAGNITUDE}",
    f"slim{MAGNITUDE}{EVEN}{SCALED}",
    "narrower",
)
Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Config:
    """Train slim networks beside narrower ones."""

    rhos: tuple[float, ...] = (10, 30)
    """Multiply-adds before over after."""
    seeds: int = 2
    """Initialisations and orders of examples."""
    examples: int = 10_000
    """Training images."""
    epochs: int = 5
    """Passes over the training images."""
    out: Path = ROOT / "benchmarks" / "results"
    """Folder of the results."""


class Net(nn.Module):
    """Six convolutions, three of them before a max-pool, and a linear head."""

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Any) -> Any:
        """Map images to logits."""
        for place, width in enumerate(self.widths):
            x = nn.relu(nn.Conv(width, (3, 3), kernel_init=nn.initializers.he_normal())(x))
            x = nn.max_pool(x, (2, 2), (2, 2)) if place % 2 else x
        return nn.Dense(10)(x.mean((1, 2)))


def drawn(widths: tuple[int, ...], seed: int) -> tuple[Any, Any]:
    """Draw a network; return params and apply_fn."""
    model = Net(widths)
    variables = model.init(jax.random.key(seed), jnp.ones((1, 28, 28, 1)))
    return linen.from_linen(model, variables)


def narrower(rho: float) -> tuple[tuple[int, ...], int]:
    """Scale all widths to the largest that fit the budget; return them and the multiply-adds."""

    def cost(widths: tuple[int, ...]) -> int:
        triples = zip(SIDES, (1, *widths), widths, strict=False)
        return sum(9 * side * side * a * b for side, a, b in triples) + 10 * widths[-1]

    scaled = [tuple(max(1, round(w * k / 256)) for w in WIDTHS) for k in range(256, 0, -1)]
    widths = next(w for w in scaled if cost(w) <= cost(WIDTHS) / rho)
    return widths, cost(widths)


def network(form: str, rho: float, seed: int) -> tuple[Any, Any, int, list[int]]:
    """Build a network of a form; return params, apply_fn, multiply-adds and widths."""
    if form == "narrower":
        widths, cost = narrower(rho)
        return (*drawn(widths, seed), cost, list(widths))
    params, apply_fn = drawn(WIDTHS, seed)
    saliency = sf.saliency.magnitude_saliency() if MAGNITUDE in form else None
    scope = sf.layerwise if EVEN in form else sf.globally
    small = sf.slim(params, apply_fn, (28, 28, 1), rho, saliency=saliency, scope=scope)
    widths = [small.params[f"Conv_{k}"]["kernel"].shape[-1] for k in range(len(WIDTHS))]
    left = jax.tree.map(scaled, params, small.params) if SCALED in form else small.params
    return left, small.apply_fn, small.multiply_adds[1], widths


def scaled(before: Any, left: Any) -> Any:
    """Scale a kernel to the variance of He et al.'s initialisation for the inputs that are left."""
    if left.ndim < 2:
        return left
    return left * (before[..., 0].size / left[..., 0].size) ** 0.5


def trained(apply_fn: Any, params: Any, dataset: Any, config: Config, seed: int) -> float:
    """Train with Adam in batches of 100; return the test accuracy."""
    images, labels = (jnp.asarray(part[: config.examples]) for part in dataset.train)
    tx = optax.adam(2e-3)

    def loss(params: Any, batch: Any) -> Any:
        logits = apply_fn(params, dataset.normalise(images[batch]))
        targets = labels[batch].astype(jnp.int32)
        return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()

    @jax.jit
    def step(params: Any, state: Any, batch: Any) -> Any:
        updates, state = tx.update(jax.grad(loss)(params, batch), state, params)
        return optax.apply_updates(params, updates), state

    state, rng = tx.init(params), np.random.default_rng(seed)
    for _ in range(config.epochs):
        for batch in rng.permutation(config.examples).reshape(-1, 100):
            params, state = step(params, state, batch)
    name = jax.jit(lambda x: apply_fn(params, dataset.normalise(x)).argmax(-1))
    tests = np.array_split(dataset.test.images, 20)
    found = np.concatenate([np.asarray(name(jnp.asarray(part))) for part in tests])
    return float((found == dataset.test.labels).mean())


def show(rows: list[Row], console: Console) -> None:
    """Print the mean accuracy of each form at each ρ."""
    table = Table("", title="Fashion-MNIST, test accuracy in %", box=box.SIMPLE_HEAD)
    rhos = sorted({row["rho"] for row in rows})
    for rho in rhos:
        table.add_column(f"ρ = {rho:g}", justify="right")
    for form in FORMS:
        found = [[r["top1"] for r in rows if (r["form"], r["rho"]) == (form, rho)] for rho in rhos]
        table.add_row(form, *(f"{100 * fmean(x):.1f}" if x else "" for x in found))
    console.print(table)


def main(config: Config) -> None:
    """Train what is missing, store every row, print."""
    where, path, console = machine("cpu"), config.out / "slim.json", terminal()
    plan = {"examples": config.examples, "epochs": config.epochs}
    rows = stored(path, where)
    known = [json.dumps([row[k] for k in ("form", "rho", "seed", *plan)]) for row in rows]
    dataset = load("fashion_mnist")
    cells = [(f, rho, s) for s in range(config.seeds) for rho in config.rhos for f in FORMS]
    for form, rho, seed in track(cells, "slim", console=console):
        if json.dumps([form, rho, seed, *plan.values()]) in known:
            continue
        params, apply_fn, cost, widths = network(form, rho, seed)
        row: Row = {"form": form, "rho": rho, "seed": seed, **plan}
        row |= {"multiply_adds": cost, "widths": widths}
        row["top1"] = trained(apply_fn, params, dataset, config, seed)
        rows.append(row | stamp())
        store(path, where, rows)
    show(rows, console)


if __name__ == "__main__":
    main(tyro.cli(Config, prog="python -m benchmarks.slim", description=__doc__))
