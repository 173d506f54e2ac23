"""The runner of the figures with training: settings, missing and stored rows, claims."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import jax
from rich.console import Console

from experiments.cells import plan as plans
from experiments.cells.cell import Cell
from experiments.cells.describe import full
from experiments.cells.methods import CONTROLS, PAPERS, ROUNDS, MethodName
from experiments.cells.plan import Case, Describe, Plan
from experiments.models.multiply_adds import multiply_adds
from experiments.records import rows as store
from experiments.records.claims import Claim
from experiments.records.console import ready, tell, terminal
from experiments.records.groups import DENSE
from experiments.records.machine import ROOT, provenance
from experiments.records.rows import RESULTS, Row
from experiments.training.optimiser import Budget

CHECKPOINTS = ROOT / "results" / "checkpoints"
ALL: tuple[MethodName, ...] = (*PAPERS, *CONTROLS, "synflow-certified")
# Budgets of the small versions: short, with a cosine, clipped as their networks have no BatchNorm.
SMALL = Budget(6, 32, 0.05, 1e-4, 1.0)
SMALL_DIGITS = Budget(20, 32, 0.05, 1e-4, 1.0)
# Rounds of methods that ignore the number: random scores and magnitudes are the same in every
# round, and the certified schedule finds its own number, stored as 0.
COUNTED = {"magnitude": 1, "random": 1, "random-erk": 1, "synflow-certified": 0}
SMOKE = Budget(1, 32, 0.05, 1e-4, 1.0)


class Task(NamedTuple):
    """A case, the cells to run on it, and the function that runs them."""

    case: Case
    cells: list[Cell]
    run: Callable[[Plan, Console, Describe], Any] = plans.run


@dataclasses.dataclass(frozen=True)
class Asked:
    """Settings of every figure with training; None is the figure's own value."""

    small: bool = False
    """Run the small version that the figure's header describes, for two CPU cores."""
    smoke: bool = False
    """Test run of seconds, on digits; results go to results/ in this folder."""
    draw: bool = False
    """Draw from the rows that are stored; no data, no training."""
    methods: tuple[MethodName, ...] = ALL
    """Methods to compare, beside the dense network."""
    seeds: int | None = None
    """How many initialisations."""
    epochs: int | None = None
    """Epochs of training; the learning rate drops in proportion."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """What networks compute in while they train; parameters and tests are float32."""
    seeds_at_once: int | None = None
    """Seeds trained under one vmap; by default one on a CPU and all elsewhere."""
    data_dir: Path | None = None
    """Where TFDS keeps its data; by default TFDS_DATA_DIR or ~/tensorflow_datasets."""
    out: Path | None = None
    """Folder of the results; by default experiments/results, results for --smoke."""

    def __post_init__(self) -> None:
        for name in ("seeds", "epochs", "seeds_at_once"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be None or at least 1, got {value}")
        known = get_args(MethodName)
        if not (self.methods and set(self.methods) <= set(known)):
            raise ValueError(f"methods must be one or more of {known}, got {self.methods!r}")
        if self.small and self.smoke:
            raise ValueError("small and smoke must not both be True, got small=True, smoke=True")

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return self.out or (Path("results") if self.smoke else RESULTS)

    def fitted(self, budget: Budget) -> Budget:
        """Apply precision and epochs to a budget; drops move in proportion."""
        budget = dataclasses.replace(budget, precision=self.precision)
        if self.epochs is None or self.epochs == budget.epochs:
            return budget
        moved = [round(drop * self.epochs / budget.epochs) for drop in budget.drops or ()]
        drops = tuple(drop for drop in dict.fromkeys(moved) if 0 < drop < self.epochs)
        drops = None if budget.drops is None else drops
        return dataclasses.replace(budget, epochs=self.epochs, drops=drops)

    def case(self, model: str, dataset: str, budget: Budget, **rest: object) -> Case:
        """Build a case with these settings; `seeds` is 3 by default."""
        rest = {"seeds": 3, "augmented": True, **rest}
        if self.seeds is not None:
            rest["seeds"] = self.seeds
        places = {"seeds_at_once": self.seeds_at_once, "data_dir": self.data_dir}
        return Case(model, dataset, self.fitted(budget), **rest, **places)  # pyright: ignore


def cells_of(
    methods: Sequence[str], grid: Iterable[float], rounds: int | None = None
) -> list[Cell]:
    """List the dense network and every method at every ρ = 10^x.

    Args:
      methods: their names.
      grid: log10 ρ; 0 is the dense network, whatever the method.
      rounds: rounds of every method not in `COUNTED`; None is 100 for SynFlow and 1 for the others,
        as in Figure 6.

    Returns:
      The cells, those of large ρ last.
    """
    counts = {name: COUNTED.get(name, rounds or ROUNDS.get(name, 1)) for name in methods}
    pairs = [(name, 10**x) for x in sorted(grid) if x > 0 for name in dict.fromkeys(methods)]
    return [Cell(DENSE, 1.0, 1), *(Cell(name, rho, counts[name]) for name, rho in pairs)]


def grid(last: float, step: float) -> list[float]:
    """List log10 ρ from 0 to `last`, in equal steps."""
    return [round(step * index, 6) for index in range(int(last / step + 1e-9) + 1)]


def make(tasks: Sequence[Task], path: Path, asked: Asked, console: Console) -> list[Row]:
    """Run the missing cells of a figure, task by task, with one network in memory at a time.

    Args:
      tasks: the tasks of the figure.
      path: the file of rows.
      asked: the settings.
      console: where progress is shown.

    Returns:
      All rows of the figure.

    Raises:
      ValueError: the settings do not fit together, or the file is malformed.
      OSError: a data set is not prepared, or the file cannot be written.
    """
    store.add(path, [])  # fail before the work if the file cannot be read or written
    head = provenance(asked, jax.default_backend())
    for task in tasks:
        if len(stored(path, [task])) < task.case.seeds * len(task.cells):
            console.print(f"{task.case.model} on {task.case.dataset}", highlight=False)
            plan = plans.prepare(task.case, task.cells, path)
            plan = dataclasses.replace(plan, checkpoints=CHECKPOINTS, asked=head)
            network = plan.networks[0]
            dense = multiply_adds(network.model, network.dataset.shape)
            task.run(plan, console, partial(full, dense=dense))
    return stored(path, tasks)


def stored(path: Path, tasks: Sequence[Task]) -> list[Row]:
    """Read the rows that were made under the settings of these tasks; no data are needed."""
    found = {store.fingerprint(plans.decided(row)): row for row in store.read(path)}
    wanted = [
        store.fingerprint(task.case.settings(cell, seed))
        for task in tasks
        for cell in task.cells
        for seed in range(task.case.seeds)
    ]
    return [found[key] for key in wanted if key in found]


def figure(
    name: str,
    asked: Asked,
    tasks: Sequence[Task],
    draw: Callable[[list[Row], Path], None],
    claims: Callable[[list[Row]], Iterator[Claim]],
) -> None:
    """Make a figure's rows, draw them, and print which claims hold.

    Args:
      name: name of the files.
      asked: the settings.
      tasks: the tasks of the figure.
      draw: draw(rows, path) writes the picture.
      claims: claims(rows) yields each claim and whether it holds.
    """
    console, path = terminal(), asked.folder / f"{name}.json"
    read = lambda asked: make(tasks, path, asked, console)
    rows = stored(path, tasks) if asked.draw else ready(read, asked)
    if not rows:
        raise SystemExit(f"error: {path} has no rows of these settings; run it without --draw")
    draw(rows, path.with_suffix(".png"))
    tell(claims(rows), console)
    console.print(f"Rows are in {path}, pictures beside it", soft_wrap=True)
