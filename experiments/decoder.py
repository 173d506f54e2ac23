"""Does pruning at initialisation carry over to a small language model?

Prunes a decoder of LLaMA's kind before training by SynFlow in flow mode, at random with ERK
densities, by magnitude, and by SynFlow inside ERK densities; trains it, character by character, on
the documentation strings of Python's standard library; shows the loss on modules that it has not
seen, in bits per character, and what each method keeps of which layer. The paper has no such
experiment.

    python -m experiments.decoder           # 39 runs: about 11 minutes on 2 CPU cores
    python -m experiments.decoder --smoke   # does it run? seconds

Writes rows.json (one row a method, ρ and seed), table.txt and figure.png. Finished runs are stored
at once: a comparison that was stopped goes on where it was when it is started again.
"""

import dataclasses
import time
from pathlib import Path

import jax
import tyro
from rich.console import Console
from rich.progress import track

from experiments.common import decoder_report
from experiments.common import rows as store
from experiments.common import text as texts
from experiments.common.command import ready, terminal
from experiments.common.decoder_config import Config
from experiments.common.decoder_methods import Start, prune, start
from experiments.common.language import LanguageTrainer
from experiments.common.machine import provenance
from experiments.common.rows import Row
from experiments.common.sweep import DENSE, Cell
from synflow_jax import collapsed_layers, report


@dataclasses.dataclass(frozen=True)
class Plan:
    """A comparison that is ready to run: what it needs is loaded and checked."""

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
      config: what to compare.

    Returns:
      The plan.

    Raises:
      ValueError: text and configuration do not fit, or the folder has malformed rows.
      OSError: the folder cannot be written.
    """
    text = texts.load(config.modules)
    path, config = config.folder / "rows.json", config.effective
    store.add(path, [])  # now rather than after the training: can it be read, written?
    trainer = LanguageTrainer(config.model, text, config.budget)
    return Plan(config, trainer, text.digest, path, provenance(config, jax.default_backend()))


def run(plan: Plan, console: Console) -> list[Row]:
    """Do what is missing of a comparison, storing every run as it is done.

    Args:
      plan: what to compare.
      console: where progress is shown; where it is no terminal, one line a run.

    Returns:
      The rows of this comparison, those of earlier runs included.
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


def run_one(cell: Cell, net: Start, trainer: LanguageTrainer) -> Row:
    """Prune and train one decoder, and describe what came out; a loss that is no number is None."""
    begin = time.perf_counter()
    masks = prune(cell, net)
    pruned = time.perf_counter()
    outcome = trainer(net.params, masks, net.order_key)
    table, finite = report(net.params, masks), bool(outcome.finite)
    return {
        "rho": cell.rho,
        "bits": round(float(outcome.validation), 5) if finite else None,
        "bits_train": round(float(outcome.train), 5) if finite else None,
        "diverged": not finite,
        "kept": table.kept,
        "prunable": table.weights,
        "collapsed": list(collapsed_layers(masks)),
        "kept_per_layer": {row.layer: row.kept for row in table.rows},
        "density_per_layer": {row.layer: round(row.density, 5) for row in table.rows},
        "seconds": round(pruned - begin, 3),
        "train_seconds": round(time.perf_counter() - pruned, 3),
    }


def main(config: Config) -> None:
    """Run a comparison, print its tables and write its files."""
    plan, console = ready(prepare, config), terminal()
    rows = run(plan, console)
    decoder_report.show(rows, config.folder / "table.txt", console)
    decoder_report.plot(rows, config.folder / "figure.png")
    console.print(f"Rows, tables and figure are in {config.folder}/")


if __name__ == "__main__":
    main(tyro.cli(Config, prog="python -m experiments.decoder", description=__doc__))
