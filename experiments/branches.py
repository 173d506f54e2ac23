"""What becomes of shortcuts, heads, towers and branches when a network is pruned before training?

Prunes networks in which paths meet, by SynFlow in flow mode: with the flow that each branch has by
itself, with half of the flow for each branch beside its skip, and with a fifth. Beside them stand
random weights at ERK densities. Trains what is left on six small tasks: a residual network with
closed blocks on scikit-learn's digits, an actor and a critic on CartPole, a decoder of 2, 6 and 12
blocks on documentation strings, and an image tower beside a text tower on digits and their names.
The paper has no such experiment.

    python -m experiments.branches                          # 234 runs
    python -m experiments.branches --tasks cartpole towers  # some of the tasks
    python -m experiments.branches --smoke                  # test run, a minute or two

Writes rows.json (one row for each task, method, ρ and seed), table.txt and figure.png. Finished
runs are stored at once: a stopped comparison continues when it is started again, and several runs
may share one folder.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import jax
from rich.console import Console
from rich.progress import track

from experiments.cells.branches import COMPARED, MethodName, run_one
from experiments.cells.cell import Cell, each_once
from experiments.cells.tasks import SMALL, TASKS, Task, TaskName
from experiments.draw.branches import plot, show
from experiments.records import rows as store
from experiments.records.checked import Checked, Rule, ratios, some_of
from experiments.records.console import ready, run_command, terminal
from experiments.records.groups import DENSE
from experiments.records.machine import provenance
from experiments.records.rows import Row
from synflow_jax import __version__

# Raise it when a change to a task, a network, training or scoring changes rows.
RECIPE = 1


@dataclasses.dataclass(frozen=True)
class Config(Checked):
    """Compare ways to share flow among branches, on six small tasks."""

    tasks: tuple[TaskName, ...] = get_args(TaskName)
    """Networks and what they are trained on."""
    methods: tuple[MethodName, ...] = COMPARED
    """Methods to compare, beside the dense network."""
    rho: tuple[float, ...] = (4.0, 10.0, 30.0)
    """Compression ratios."""
    seeds: int = 3
    """How many initialisations; a seed also draws what training draws, and random masks."""
    smoke: bool = False
    """Test run: tiny networks, a few steps, the first ρ and one seed, whatever is set above."""
    out: Path | None = None
    """Folder of the results; by default results/branches, or results/branches-smoke."""

    def _rules(self) -> Iterator[Rule]:
        yield some_of("tasks", self.tasks, get_args(TaskName))
        yield some_of("methods", self.methods, get_args(MethodName))
        yield ratios("rho", self.rho)
        yield "seeds", self.seeds >= 1, "at least 1"

    @property
    def effective(self) -> "Config":
        """The settings that are run: one ρ and one seed in a smoke run."""
        small: Any = {"rho": self.rho[:1], "seeds": 1}
        return dataclasses.replace(self, **small) if self.smoke else self

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return self.out or Path("results", "branches-smoke" if self.smoke else "branches")

    @property
    def chosen(self) -> dict[TaskName, Task]:
        """The tasks, once each."""
        known = SMALL if self.smoke else TASKS
        return {name: known[name] for name in dict.fromkeys(self.tasks)}

    @property
    def cells(self) -> list[Cell]:
        """The dense network, then every method at every ρ, once."""
        return [Cell(DENSE, 1.0), *each_once(self.methods, self.rho)]

    def settings(self, name: TaskName, cell: Cell, seed: int) -> Row:
        """Return everything that decides one seed of a cell of a task."""
        return {
            "version": __version__,
            "recipe": RECIPE,
            "task": name,
            "method": cell.method,
            "log10_rho": cell.log10_rho,
            "seed": seed,
            **self.chosen[name].settings,
        }


@dataclasses.dataclass(frozen=True)
class Run:
    """One seed of a cell of a task."""

    name: TaskName
    cell: Cell
    seed: int
    settings: Row

    @property
    def key(self) -> str:
        """The fingerprint of the row."""
        return store.fingerprint(self.settings)


@dataclasses.dataclass(frozen=True)
class Plan:
    """A comparison that is ready to run: settings checked, runs listed task by task."""

    tasks: dict[TaskName, Task]
    runs: list[Run]
    path: Path
    asked: Row  # written at the head of the file with the first new row


def prepare(config: Config) -> Plan:
    """List the runs of a comparison and make its folder.

    Args:
      config: the settings.

    Returns:
      The plan.

    Raises:
      ValueError: the folder has malformed rows, or Python runs without documentation strings.
      OSError: the folder cannot be written.
    """
    path, config = config.folder / "rows.json", config.effective
    store.add(path, [])  # fail before the work if it cannot be read or written
    runs = [
        Run(name, cell, seed, config.settings(name, cell, seed))
        for name in config.chosen
        for cell in config.cells
        for seed in range(config.seeds)
    ]
    return Plan(config.chosen, runs, path, provenance(config, jax.default_backend()))


def run(plan: Plan, console: Console) -> list[Row]:
    """Run what is missing of a comparison, and store each run when it is done.

    Args:
      plan: the comparison.
      console: where progress is shown; one line a run if it is not a terminal.

    Returns:
      The rows of this comparison, including those of earlier runs.
    """
    done = {row["config"] for row in store.read(plan.path)}
    missing = [one for one in plan.runs if one.key not in done]
    for one in track(missing, "runs", console=console, disable=not console.is_terminal):
        task = plan.tasks[one.name]
        found = run_one(one.cell, task.start(one.seed), task)
        store.add(plan.path, [{"config": one.key, **one.settings, **found}], plan.asked)
        cell = f"{one.name:<10} {one.cell.method:<11} ρ = {one.cell.rho:<4g} seed {one.seed}"
        line = f"{cell}, {found['measure']}: {found['value']}, {found['train_seconds']:.0f} s"
        console.print(line, highlight=False, soft_wrap=True)
    return store.of_configs(plan.path, [one.key for one in plan.runs])


def main(config: Config) -> None:
    """Run a comparison, print its tables and write its files."""
    plan, console = ready(prepare, config), terminal()
    rows = run(plan, console)
    show(rows, config.folder / "table.txt", console)
    plot(rows, config.folder / "figure.png")
    console.print(f"Rows, tables and figure are in {config.folder}/")


if __name__ == "__main__":
    run_command(main, Config, "branches", __doc__)
