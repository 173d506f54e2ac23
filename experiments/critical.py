r"""Up to which compression does each method keep every layer? Without training.

The largest ρ at which a method keeps every layer, found by bisection, for every seed and network.
The paper has it on a grid of quarter decades, from three runs of VGG-16 on CIFAR-100 (crosses in
the figure) with 100 rounds for every method. Here SynFlow has 100 and the others one; `--rounds`
changes that.

    python -m experiments.critical                   # 20 seeds of four networks
    python -m experiments.critical --models vgg16 --dataset cifar100 --rounds 100 --seeds 3
    python -m experiments.critical --draw            # from the rows that are stored

A plain chain of layers can be compressed to ρ_max = N/L. Beside a skip connection SynFlow may empty
a branch, certified or not: the flow continues on the skip connection while a layer is lost.

SNIP and GraSP score 10 examples a class of the data set, as in Figure 6. If a method loses a layer,
keeps all at a larger ρ and loses one again, bisection finds one of these ρ. SynFlow on the
certified schedule is tried at ρ_max itself: it reaches it, or its row has the ρ that it reached.
Writes critical.json (one row for each network, method and seed) and critical.png.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any, get_args

import jax
from rich.console import Console
from rich.progress import track

from experiments.cells import critical as work
from experiments.cells.methods import PAPERS, MethodName
from experiments.cells.network import Network
from experiments.data.dataset import DatasetName, load
from experiments.draw.critical import draw
from experiments.models import MODELS, ModelName
from experiments.records import published
from experiments.records import rows as store
from experiments.records.claims import Claim
from experiments.records.console import ready, run_command, tell, terminal
from experiments.records.machine import provenance
from experiments.records.rows import RESULTS, Row
from synflow_jax import __version__

RECIPE = 1
Cell = tuple[ModelName, MethodName, int]
METHODS: tuple[MethodName, ...] = (*PAPERS, "random-erk", "synflow-certified")


@dataclasses.dataclass(frozen=True)
class Config:
    """Find the critical compression of methods over seeds and networks."""

    models: tuple[ModelName, ...] = ("fc", "conv", "resnet20", "vgg16")
    """Networks, for images of the data set."""
    dataset: DatasetName = "cifar10"
    """Data set: the shape of images and classes, and what SNIP and GraSP score."""
    methods: tuple[MethodName, ...] = METHODS
    """Methods to compare."""
    seeds: int = 20
    """How many initialisations."""
    rounds: int | None = None
    """Rounds of every method; None is 100 for SynFlow and 1 for the others."""
    tolerance: float = 0.05
    """Decades of ρ at which the search ends."""
    smoke: bool = False
    """Test run of seconds: one seed of fc on digits; results go to results/ in this folder."""
    draw: bool = False
    """Draw from the rows that are stored."""
    data_dir: Path | None = None
    """Where TFDS keeps its data; by default TFDS_DATA_DIR or ~/tensorflow_datasets."""
    out: Path | None = None
    """Folder of the results; by default experiments/results, results for --smoke."""

    def __post_init__(self) -> None:
        for name in ("seeds", "rounds"):
            value = getattr(self, name)
            if (value is None and name == "seeds") or (value is not None and value < 1):
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not 0 < self.tolerance <= 1:
            raise ValueError(f"tolerance must be above 0 and at most 1, got {self.tolerance}")
        for name, kind in (("models", ModelName), ("methods", MethodName)):
            value, known = getattr(self, name), get_args(kind)
            if not (value and set(value) <= set(known)):
                raise ValueError(f"{name} must be one or more of {known}, got {value!r}")

    @property
    def effective(self) -> "Config":
        """The settings that are run: a small part of them in a smoke run."""
        small: Any = {"models": ("fc",), "dataset": "digits", "seeds": 1, "tolerance": 0.5}
        return dataclasses.replace(self, **small) if self.smoke else self

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return self.out or (Path("results") if self.smoke else RESULTS)

    def settings(self, model: str, method: str, seed: int) -> Row:
        """Return everything that decides a row."""
        asked = {"dataset": self.dataset, "model": model, "method": method, "seed": seed}
        rest = {"rounds": work.rounds(method, self.rounds), "tolerance": self.tolerance}
        return {"version": __version__, "recipe": RECIPE, **asked, **rest}


def make(config: Config, path: Path, console: Console) -> list[Row]:
    """Compute the missing rows, and store each when it is found.

    Args:
      config: the settings.
      path: the file of rows.
      console: where progress is shown; one line a row if it is not a terminal.

    Returns:
      The rows of these settings.

    Raises:
      ValueError: network and data set do not fit, or the file is malformed.
      OSError: the data set is not prepared, or the file cannot be written.
    """
    store.add(path, [])  # fail before the work if the file cannot be read or written
    asked = provenance(config, jax.default_backend())
    found = {row["config"] for row in store.read(path)}
    missing = [cell for cell in _cells(config) if _key(config, cell) not in found]
    dataset = load(config.dataset, config.data_dir)
    hidden = not console.is_terminal
    for cell in track(missing, "critical", console=console, disable=hidden):
        model, method, seed = cell
        network = Network(MODELS[model](dataset.classes), dataset, seed, augmented=True)
        row = work.find(network, method, config.tolerance, config.rounds)
        store.add(path, [{"config": _key(config, cell), **config.settings(*cell)} | row], asked)
        line = f"{model:<10} {method:<18} seed {seed:<3} log10 ρ_cr {row['log10_rho_cr']:.2f}"
        console.print(line, highlight=False, soft_wrap=True)
    return stored(config, path)


def stored(config: Config, path: Path) -> list[Row]:
    """Read the stored rows of these settings."""
    wanted = {_key(config, cell) for cell in _cells(config)}
    return [row for row in store.read(path) if row["config"] in wanted]


def _cells(config: Config) -> list[Cell]:
    """List the combinations of network, method and seed."""
    return list(itertools.product(config.models, config.methods, range(config.seeds)))


def _key(config: Config, cell: Cell) -> str:
    return store.fingerprint(config.settings(*cell))


def claims(rows: list[Row]) -> Iterator[Claim]:
    """Check the claims for each network."""
    for model in dict.fromkeys(row["model"] for row in rows):
        mine = [row for row in rows if row["model"] == model]
        found = {
            name: [row["log10_rho_cr"] for row in mine if row["method"] == name]
            for name in dict.fromkeys(row["method"] for row in mine)
        }
        shown = [f"{name} {fmean(x):.2f} ({min(x):.2f}–{max(x):.2f})" for name, x in found.items()]
        others = [max(x) for name, x in found.items() if name in PAPERS and name != "synflow"]
        if "synflow" in found and others:
            good = min(found["synflow"]) >= max(others)
            yield f"{model}: SynFlow bears more than any other of the paper's methods", good
        certified = found.get("synflow-certified")
        if certified:
            limit = mine[0]["log10_rho_max"]
            text = f"{model}: certified pruning reaches ρ_max = 10^{limit:.2f}"
            yield f"{text}; means (ranges): {', '.join(shown)}", min(certified) >= limit - 1e-4


def main(config: Config) -> None:
    """Compute the missing rows, draw the figure, check the claims."""
    console, path = terminal(), config.folder / "critical.json"
    asked = config.effective
    if config.draw:
        rows = stored(asked, path)
    else:
        rows = ready(lambda asked: make(asked, path, console), asked)
    if not rows:
        raise SystemExit(f"error: {path} has no rows of these settings; run it without --draw")
    draw(rows, published.table("critical"), path.with_suffix(".png"))
    tell(claims(rows), console)
    console.print(f"Rows are in {path}, the figure beside it", soft_wrap=True)


if __name__ == "__main__":
    run_command(main, Config, "critical", __doc__)
