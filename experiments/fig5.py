r"""Figure 5: why does iterative magnitude pruning reach compressions that one round does not?

The paper's claims. (a) One iteration of training, pruning by magnitude and rewinding ends in layer
collapse early, two or three much later. Expected on VGG-11 and CIFAR-10: 1 iteration 88.2 at
10^0.9, 48.0 at 10^1.7, chance from 10^1.9; 2 iterations 86.3 at 10^1.9, 71.3 at 10^2.9;
3 iterations 87.0 at 10^1.9, 74.5 at 10^2.9, chance at about 10^4.1. (b) The reason: during training
the mean squared magnitude of a layer's weights becomes proportional to one over the layer's size,
as for conserved scores.

    python -m experiments.fig5                       # (a) VGG-11, 50 epochs a level; (b) VGG-19
    python -m experiments.fig5 --small               # fc on digits (a) and Fashion-MNIST (b)
    python -m experiments.fig5 --draw                # from the rows that are stored

The caption says VGG-19 for (a), but the authors' stored results are VGG-11's; the numbers above are
theirs. (b) is VGG-19 under Xavier's initialisation, 100 epochs at a rate of 0.001. The full figure
has not been run here. An estimate from arithmetic alone: the iterative pruning of (a) is 3 × 55
trainings of 153 million multiply-adds × 3 (forward and backward) × 50,000 images × 50 epochs,
2·10^17 in all.

The small version: five hidden layers of 100; (a) on 1,437 digits, 20 epochs a level, 2 seeds; (b)
on 10,000 images of Fashion-MNIST, 30 epochs.

Beside iterative pruning: pruning at initialisation at the same ρ under the same budget, by SynFlow,
its masks shuffled inside layers, random weights at ERK densities, and the certified schedule.
Writes fig5.json (panel b is one row a seed, method xavier) and fig5.png.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from experiments.cells import plan as plans
from experiments.cells.cell import Cell
from experiments.cells.iterative import IMP, XAVIER, Iterative, watch
from experiments.cells.methods import MethodName
from experiments.cells.plan import Case, Describe, Plan
from experiments.cells.trained import SMALL, SMALL_DIGITS, SMOKE, Asked, Task, cells_of, figure
from experiments.draw.iterative import SHADES, draw, slope
from experiments.records import published
from experiments.records.claims import Claim, critical
from experiments.records.console import run_command
from experiments.records.groups import DENSE, by_compression, mean
from experiments.records.rows import Row
from experiments.training.settings import ITERATIVE, WATCHED

FULL_GRID = (0.5, 0.9, 1.3, 1.7, 1.9, 2.3, 2.9, 3.5, 4.1)
SMALL_GRID = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5)
SEEN = 0.05  # a smaller rise of the slope is no trend
BESIDE: tuple[MethodName, ...] = ("synflow", "synflow-shuffled", "random-erk", "synflow-certified")


@dataclasses.dataclass(frozen=True)
class Config(Asked):
    """Draw Figure 5: iterative magnitude pruning, and what training does to layers."""

    methods: tuple[MethodName, ...] = BESIDE
    """Methods of pruning at initialisation beside it."""
    iterations: tuple[int, ...] = (1, 2, 3)
    """Numbers of iterations of training, pruning and rewinding."""

    def __post_init__(self) -> None:
        super().__post_init__()
        most = max(SHADES)  # a colour each
        if not (self.iterations and set(self.iterations) <= set(SHADES)):
            raise ValueError(
                f"iterations must be one or more numbers of 1 to {most}, got {self.iterations}"
            )


def tasks(config: Config) -> list[Task]:
    """List the tasks of both panels."""
    if config.smoke:
        one = config.case("fc", "digits", SMOKE, seeds=1, examples=320)
        return _panels(config, one, (2.0,), one)
    if config.small:
        watched = config.case(
            "fc", "fashion_mnist", dataclasses.replace(SMALL, epochs=30), seeds=1, examples=10000
        )
        return _panels(
            config, config.case("fc", "digits", SMALL_DIGITS, seeds=2), SMALL_GRID, watched
        )
    watched = config.case("vgg19", "cifar10", WATCHED, seeds=1)
    return _panels(config, config.case("vgg11", "cifar10", ITERATIVE), FULL_GRID, watched)


def _panels(config: Config, pruned: Case, points: Sequence[float], watched: Case) -> list[Task]:
    counts = dict.fromkeys(config.iterations)
    cells = [Cell(IMP, 10**x, count) for x in points for count in counts]
    cells = [*cells_of(config.methods, points), *cells]
    return [Task(pruned, cells, run_iterative), Task(watched, [Cell(XAVIER, 1.0, 1)], watch)]


def run_iterative(plan: Plan, console: Console, describe: Describe) -> list[Row]:
    """Run the cells of panel a."""
    return plans.run(dataclasses.replace(plan, work=Iterative()), console, describe)


def picture(rows: list[Row], path: Path) -> None:
    """Draw both panels, with the paper's points if the network is the paper's."""
    mine = [row for row in rows if row["method"] != XAVIER]
    pair = {(row["model"], row["dataset"]) for row in mine}
    faint = [x for x in published.table("fig5a") if (x["model"], x["dataset"]) in pair]
    title = "Figure 5: iterative magnitude pruning, and training equalises layers"
    draw(rows, faint, f"{title} ({len({row['seed'] for row in mine})} seeds in a)", path)


def claims(rows: list[Row]) -> Iterator[Claim]:
    """Check the claims of both panels."""
    pruned = [row for row in rows if row["method"] != XAVIER]
    by_count = {
        count: [row for row in pruned if row["method"] == DENSE or row["rounds"] == count]
        for count in sorted({row["rounds"] for row in pruned if row["method"] == IMP})
    }
    yield from _later(by_count)
    yield from _better(by_count)
    for row in rows:
        if row["method"] == XAVIER:
            before, after = slope(row, 0), slope(row, -1)
            text = f"training brings mean squares towards 1/size, seed {row['seed']}"
            yield f"{text}: slope {before:.3f} to {after:.3f}", after > before + SEEN


def _later(by_count: dict[int, list[Row]]) -> Iterator[Claim]:
    """Check that more iterations keep all layers up to the same or a larger ρ."""
    ends = {count: critical(rows, IMP) or 0.0 for count, rows in by_count.items()}
    text = ", ".join(f"{count}: 10^{end:g}" for count, end in ends.items())
    good = list(ends.values()) == sorted(ends.values())
    yield f"more iterations keep all layers as long or longer; {text}", good


def _better(by_count: dict[int, list[Row]]) -> Iterator[Claim]:
    """Check that more iterations are more accurate at each ρ of 100 or more."""
    if len(by_count) < 2:
        return
    first, last = min(by_count), max(by_count)
    groups = {count: by_compression(by_count[count], IMP) for count in (first, last)}
    for x in [x for x in groups[first] if x >= 2 and x in groups[last]]:
        one, many = (100 * mean(groups[count][x]) for count in (first, last))
        text = f"{last} iterations beat {first} at 10^{x:g}: {many:.1f} and {one:.1f}"
        yield text, many > one


def main(config: Config) -> None:
    """Make the rows, draw both panels, check the claims."""
    figure("fig5", config, tasks(config), picture, claims)


if __name__ == "__main__":
    run_command(main, Config, "fig5", __doc__)
