r"""Figure 6: who wins at which compression, on which network and data set?

The paper's claim: up to about ρ = 10 all methods but random are alike; beyond, SynFlow leads, and
it still trains where the others have lost a layer and are at chance. Expected, best epoch, mean of
3, on VGG-16 and CIFAR-10: dense 93.5; at ρ = 100 SynFlow 90.1, magnitude 89.8, SNIP 89.2, GraSP
87.5, random 79.1; at ρ = 1000 SynFlow 80.4, SNIP 76.3, GraSP 70.9, magnitude and random 10.0.

    python -m experiments.fig6                       # 9 networks × 13 ρ × 8 methods × 3 seeds
    python -m experiments.fig6 --models vgg16 --datasets cifar10 --step 0.5 --precision bfloat16
    python -m experiments.fig6 --small               # fc and conv on digits and Fashion-MNIST
    python -m experiments.fig6 --draw                # from the rows that are stored

The full figure has the paper's settings: 160 epochs on CIFAR, 100 on Tiny-ImageNet; SynFlow in 100
rounds, the others in one. It has not been run here. An estimate from arithmetic alone: a run of
VGG-16 on CIFAR is 313 million multiply-adds × 3 (forward and backward) × 50,000 images × 160 epochs
= 7.5·10^15, and the panel has 291 such runs.

The small version: both networks without BatchNorm under short budgets (see SMALL in
cells/trained.py) on 1,437 digits and 3,000 images of Fashion-MNIST, half decades, 2 seeds; the
convolutional network on Fashion-MNIST 2 epochs, whole decades, 1 seed.

Beside the paper's five methods: SynFlow's masks shuffled inside layers, random weights at ERK
densities, SynFlow with the certified schedule; and fig6_effective.png, the same accuracies against
effective compression, which counts only kept weights on a path from input to output. Writes
fig6.json (one row a network, method, ρ and seed) and both pictures.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from experiments.cells.methods import PAPERS
from experiments.cells.plan import Case
from experiments.cells.trained import (
    SMALL,
    SMALL_DIGITS,
    SMOKE,
    Asked,
    Task,
    cells_of,
    figure,
    grid,
)
from experiments.draw.curves import draw
from experiments.records.claims import Claim, crashes, follows, leads, worth
from experiments.records.console import run_command
from experiments.records.published import Panel, curves
from experiments.records.rows import Row
from experiments.training.settings import settings

DIGITS = dataclasses.replace(SMALL_DIGITS, epochs=10)
FASHION = dataclasses.replace(SMALL, epochs=4)
Network = Literal["vgg11", "vgg16", "resnet18"]
Data = Literal["cifar10", "cifar100", "tiny_imagenet"]


@dataclasses.dataclass(frozen=True)
class Config(Asked):
    """Draw Figure 6: accuracy against compression over networks and data sets."""

    models: tuple[Network, ...] = ("vgg11", "vgg16", "resnet18")
    """Networks of the full figure; the paper's WideResNet-18 is ResNet-18."""
    datasets: tuple[Data, ...] = ("cifar10", "cifar100", "tiny_imagenet")
    """Data sets of the full figure."""
    last: float = 3.0
    """The largest log10 ρ."""
    step: float | None = None
    """Decades from one ρ to the next; by default 0.25, the paper's, or the small version's own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("last", "step"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 10:
                raise ValueError(f"{name} must be above 0 and at most 10 decades, got {value}")


def tasks(config: Config) -> list[Task]:
    """List the tasks of the figure."""
    if config.smoke:
        cases = [config.case("fc", "digits", SMOKE, seeds=1, examples=320)]
        return [Task(case, cells_of(config.methods, [0.0, 1.0, 3.0])) for case in cases]
    if config.small:
        return list(_small(config))
    cases = [_full(config, model, data) for data in config.datasets for model in config.models]
    points = grid(config.last, config.step or 0.25)
    return [Task(case, cells_of(config.methods, points)) for case in cases]


def _small(config: Config) -> Iterator[Task]:
    """List the tasks of the small version; the last and costliest has one seed, whole decades."""
    half = cells_of(config.methods, grid(config.last, config.step or 0.5))
    whole = cells_of(config.methods, grid(config.last, config.step or 1.0))
    fashion = {"examples": 3000}
    yield Task(config.case("fc", "digits", DIGITS, seeds=2), half)
    yield Task(config.case("conv", "digits", DIGITS, seeds=2), half)
    yield Task(config.case("fc", "fashion_mnist", FASHION, seeds=2, **fashion), half)
    short = dataclasses.replace(FASHION, epochs=2)
    yield Task(config.case("conv", "fashion_mnist", short, seeds=1, **fashion), whole)


def _full(config: Config, model: str, dataset: str) -> Case:
    name: Any = f"{model}-tiny" if dataset == "tiny_imagenet" else model
    return config.case(name, dataset, settings(name, dataset))


def panels(rows: list[Row]) -> list[Panel]:
    """Sort the rows into panels, in order, with the paper's curves if there are any."""
    pairs = dict.fromkeys((row["model"], row["dataset"]) for row in rows)
    return [
        Panel(
            f"{model}, {dataset}",
            [row for row in rows if (row["model"], row["dataset"]) == (model, dataset)],
            curves("fig6", model, dataset),
        )
        for model, dataset in pairs
    ]


def picture(rows: list[Row], path: Path) -> None:
    """Draw accuracy against compression, and against effective compression in a second file."""
    parts = panels(rows)
    draw(parts, _title(rows), path)
    other = path.with_stem(f"{path.stem}_effective")
    draw(parts, f"{_title(rows)}, by effective compression", other, "effective")


def _title(rows: list[Row]) -> str:
    epochs = sorted({row["epochs"] for row in rows})
    seeds = len({row["seed"] for row in rows})
    return f"Figure 6: up to {seeds} seeds, {' and '.join(map(str, epochs))} epochs"


def claims(rows: list[Row]) -> Iterator[Claim]:
    """Check the claims for each panel."""
    for panel in panels(rows):
        for claim in (leads, crashes, worth):
            yield from claim(panel, PAPERS)
        yield from follows(panel)


def main(config: Config) -> None:
    """Make the rows, draw both pictures, check the claims."""
    figure("fig6", config, tasks(config), picture, claims)


if __name__ == "__main__":
    run_command(main, Config, "fig6", __doc__)
