"""Does pruning at initialisation carry over to a small language model?

Prunes a LLaMA-style decoder before training by SynFlow in flow mode, at random with ERK densities,
by magnitude, and by SynFlow inside ERK densities. Trains it, character by character, on the
documentation strings of Python's standard library. Shows the loss in bits per character on modules
that it has not seen, and the density of each layer by method. The paper has no such experiment.

    python -m experiments.decoder           # 39 runs: about 11 minutes on 2 CPU cores
    python -m experiments.decoder --smoke   # test run, seconds

Writes rows.json (one row for each method, ρ and seed), table.txt and figure.png. Finished runs are
stored at once: a stopped comparison continues when it is started again.
"""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import jax
from rich.console import Console
from rich.progress import track

from experiments.cells.cell import Cell, each_once
from experiments.cells.decoder import MethodName, run_one, start
from experiments.data import text as texts
from experiments.data.text import CHARACTERS, MODULES, NINTH
from experiments.draw.decoder import plot, show
from experiments.models.decoder import Decoder
from experiments.records import rows as store
from experiments.records.checked import Checked, Rule, ratios, some_of
from experiments.records.console import ready, run_command, terminal
from experiments.records.groups import DENSE
from experiments.records.machine import provenance
from experiments.records.rows import Row
from experiments.training.language import Budget, LanguageTrainer
from synflow_jax import __version__

# Raise it when a change to the text, the model, training or scoring changes rows.
RECIPE = 1
SMALL: Any = {"rho": (4.0,), "seeds": 1, "steps": 60, "batch_size": 4, "context": 16}
SMALL |= {"width": 8, "depth": 1}


@dataclasses.dataclass(frozen=True)
class Config(Checked):
    """Compare pruning methods at initialisation on a small language model."""

    methods: tuple[MethodName, ...] = get_args(MethodName)
    """Methods to compare, beside the dense network."""
    rho: tuple[float, ...] = (4.0, 10.0, 30.0)
    """Compression ratios."""
    seeds: int = 3
    """How many initialisations; a seed also draws the order of the text and random masks."""
    steps: int = 800
    """Training steps for every network."""
    batch_size: int = 8
    """Windows of text a step."""
    context: int = 64
    """Characters that a prediction may depend on."""
    width: int = 64
    """Features of the residual stream; the MLP has three times as many."""
    depth: int = 2
    """Blocks of attention and MLP."""
    learning_rate: float = 1e-2
    """Learning rate after the warm-up."""
    weight_decay: float = 0.01
    """Decoupled weight decay."""
    smoke: bool = False
    """Test run of seconds: 60 steps of a tiny decoder on a short text, whatever is set above."""
    out: Path | None = None
    """Folder of the results; by default results/decoder, or results/decoder-smoke."""

    def _rules(self) -> Iterator[Rule]:
        yield some_of("methods", self.methods, get_args(MethodName))
        yield ratios("rho", self.rho)
        for name in ("seeds", "steps", "batch_size", "context", "depth"):
            yield name, getattr(self, name) >= 1, "at least 1"
        yield "width", self.width >= 8 and self.width % 8 == 0, "a multiple of 8"
        yield "learning_rate", 0 < self.learning_rate < math.inf, "finite and above 0"
        yield "weight_decay", 0 <= self.weight_decay < math.inf, "finite and at least 0"

    @property
    def effective(self) -> "Config":
        """The settings that are run: fixed small ones in a smoke run."""
        return dataclasses.replace(self, **SMALL) if self.smoke else self

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return self.out or Path("results", "decoder-smoke" if self.smoke else "decoder")

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules whose documentation is the text."""
        return MODULES[:NINTH] if self.smoke else MODULES

    @property
    def budget(self) -> Budget:
        """The budget of every network."""
        rates = self.learning_rate, self.weight_decay
        return Budget(self.steps, self.batch_size, self.context, *rates)

    @property
    def model(self) -> Decoder:
        """The network."""
        return Decoder(len(CHARACTERS), self.width, hidden=3 * self.width, depth=self.depth)

    @property
    def cells(self) -> list[Cell]:
        """Every method at every ρ, once."""
        return each_once(self.methods, self.rho)

    def settings(self, cell: Cell, seed: int, digest: str) -> Row:
        """Return everything that decides one seed of a cell; digest is that of the text."""
        model = dataclasses.asdict(self.model)
        return {
            "version": __version__,
            "recipe": RECIPE,
            "text": digest,
            "method": cell.method,
            "log10_rho": cell.log10_rho,
            "seed": seed,
            "model": {k: v for k, v in model.items() if isinstance(v, int)},
            **dataclasses.asdict(self.budget),
        }


@dataclasses.dataclass(frozen=True)
class Plan:
    """A comparison that is ready to run: text loaded, settings checked."""

    config: Config
    trainer: LanguageTrainer
    digest: str
    path: Path
    asked: Row  # written at the head of the file with the first new row

    @property
    def runs(self) -> list[tuple[Cell, int]]:
        """Every cell and seed, the dense network first."""
        cells = [Cell(DENSE, 1.0), *self.config.cells]
        return [(cell, seed) for cell in cells for seed in range(self.config.seeds)]

    def key(self, cell: Cell, seed: int) -> str:
        """Fingerprint one seed of a cell."""
        return store.fingerprint(self.config.settings(cell, seed, self.digest))


def prepare(config: Config) -> Plan:
    """Collect the text and make the folder of a comparison.

    Args:
      config: the settings.

    Returns:
      The plan.

    Raises:
      ValueError: text and settings do not fit, or the folder has malformed rows.
      OSError: the folder cannot be written.
    """
    text = texts.load(config.modules)
    path, config = config.folder / "rows.json", config.effective
    store.add(path, [])  # fail before the work if it cannot be read or written
    trainer = LanguageTrainer(config.model, text, config.budget)
    return Plan(config, trainer, text.digest, path, provenance(config, jax.default_backend()))


def run(plan: Plan, console: Console) -> list[Row]:
    """Run what is missing of a comparison, and store each run when it is done.

    Args:
      plan: the comparison.
      console: where progress is shown; one line a run if it is not a terminal.

    Returns:
      The rows of this comparison, including those of earlier runs.
    """
    config, done = plan.config, {row["config"] for row in store.read(plan.path)}
    missing = [(cell, seed) for cell, seed in plan.runs if plan.key(cell, seed) not in done]
    starts = [start(config.model, config.context, seed) for seed in range(config.seeds)]
    shown = track(missing, "runs", console=console, disable=not console.is_terminal)
    for cell, seed in shown:
        new = {
            "config": plan.key(cell, seed),
            **config.settings(cell, seed, plan.digest),
            **run_one(cell, starts[seed], plan.trainer),
        }
        store.add(plan.path, [new], plan.asked)
        line = f"{cell.method:<12} ρ = {cell.rho:<4g} seed {seed}, bits: {new['bits']}"
        console.print(line, highlight=False, soft_wrap=True)
    return store.of_configs(plan.path, [plan.key(cell, seed) for cell, seed in plan.runs])


def main(config: Config) -> None:
    """Run a comparison, print its tables and write its files."""
    plan, console = ready(prepare, config), terminal()
    rows = run(plan, console)
    show(rows, config.folder / "table.txt", console)
    plot(rows, config.folder / "figure.png")
    console.print(f"Rows, tables and figure are in {config.folder}/")


if __name__ == "__main__":
    run_command(main, Config, "decoder", __doc__)
