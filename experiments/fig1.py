r"""Figure 1: how far can a network be compressed before a method loses a whole layer?

The paper's claim: with 100 rounds each, random, magnitude, SNIP and GraSP lose a layer of VGG-16 at
10^2.75 to 10^3.75, and accuracy falls to chance there; SynFlow keeps every layer up to about ρ_max
= N/L = 10^6.02, the most that any method can reach. Expected log10 ρ_cr, three runs: magnitude 2.75
2.75 2.75, random 2.75 3.75 3.50, SNIP 3.75 3.50 3.50, GraSP 3.50 3.75 3.50, SynFlow 6.00 6.00 5.75;
top-1 of the dense network 73.0.

    python -m experiments.fig1                       # VGG-16, CIFAR-100: 25 ρ × 8 methods × 3 seeds
    python -m experiments.fig1 --small               # fc on digits, to its own ρ_max = 10^3.90
    python -m experiments.fig1 --draw                # from the rows that are stored

The full figure has the paper's settings, 160 epochs. It has not been run here. An estimate from
arithmetic alone: 579 runs of 313 million multiply-adds × 3 (forward and backward) × 50,000 images ×
160 epochs, 4.4·10^18 in all.

The small version: five hidden layers of 100 on 1,437 digits, one short budget (see SMALL_DIGITS
in cells/trained.py), every quarter decade up to ρ_max, 3 seeds. Two things differ from the paper
there. The main claim does not show: GraSP keeps all layers as far as SynFlow, to 10^3.75, and SNIP
and random weights to 10^3.25; only magnitude loses a layer early, at 10^2.5. And GraSP is at 10 to
13 % from 10^0.25 to 10^1, and then rises to 71 % at 10^1.5. No layer is empty there: with the
weights that GraSP keeps in 100 rounds, logits and gradients explode, as there is no BatchNorm. With
seed 0 the deviation of the logits goes from 1.4 to 4,500 at 10^0.5 and the norm of the gradient
from 5.9 to 9,500; at 10^1.5 they are 49 and 180. SGD with gradients clipped at norm 1 does not
train such a network.

The number of rounds does not matter to magnitude and random weights, whose scores are the same in
every round. The control and the methods beyond the paper are drawn dashed; fig1_effective.png has
the same accuracies against effective compression, which counts only kept weights on a path from
input to output. Writes fig1.json and both pictures.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from experiments.cells.methods import PAPERS
from experiments.cells.trained import SMALL_DIGITS, SMOKE, Asked, Task, cells_of, figure, grid
from experiments.draw.curves import arrows, draw
from experiments.records.claims import Claim, above_chance, crashes, critical, follows, leads
from experiments.records.console import run_command
from experiments.records.groups import by_compression, max_rho, mean
from experiments.records.published import Panel, curves
from experiments.records.rows import Row
from experiments.training.settings import settings

ROUNDS = 100  # of a method whose scores depend on the masks


@dataclasses.dataclass(frozen=True)
class Config(Asked):
    """Draw Figure 1: accuracy up to the maximal compression."""

    rounds: int = ROUNDS
    """Rounds of every method whose scores depend on the masks."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rounds < 1:
            raise ValueError(f"rounds must be at least 1, got {self.rounds}")


def tasks(config: Config) -> list[Task]:
    """List the tasks of the figure."""
    if config.smoke:
        case, points = config.case("fc", "digits", SMOKE, seeds=1, examples=320), [0.0, 2.0, 3.75]
    elif config.small:
        case, points = config.case("fc", "digits", SMALL_DIGITS), grid(3.75, 0.25)
    else:
        budget = settings("vgg16", "cifar100")
        case, points = config.case("vgg16", "cifar100", budget), grid(6.0, 0.25)
    return [Task(case, cells_of(config.methods, points, config.rounds))]


def panel(rows: list[Row]) -> Panel:
    """Pair the rows with the paper's curves of the same network, if there are any."""
    model, dataset = rows[0]["model"], rows[0]["dataset"]
    return Panel(f"{model}, {dataset}", rows, curves("fig1", model, dataset))


def picture(rows: list[Row], path: Path) -> None:
    """Draw accuracy against compression, and against effective compression in a second file."""
    only = panel(rows)
    seeds, epochs = len({row["seed"] for row in rows}), rows[0]["epochs"]
    rounds = max(row["rounds"] for row in rows)
    title = f"Figure 1: {rounds} rounds, {seeds} seeds, {epochs} epochs"
    marks = {name: critical(rows, name) for name in PAPERS}
    draw([only], title, path, extra=lambda axes: arrows(axes, marks, rows))
    other = path.with_stem(f"{path.stem}_effective")
    draw([only], f"{title}, by effective compression", other, "effective")


def claims(rows: list[Row]) -> Iterator[Claim]:
    """Check the claims of the figure."""
    only = panel(rows)
    yield from crashes(only, PAPERS)
    yield from leads(only, PAPERS)
    last = max(row["log10_rho"] for row in rows)
    limit = max_rho(rows[0])
    for name in ("synflow", "synflow-certified"):
        found = critical(rows, name)
        if found is not None:
            text = f"{name} keeps every layer up to 10^{last:g}, next to ρ_max = {limit:.0f}"
            yield f"{text}; log10 ρ_cr {found:g}", found == last
    yield from _trains(rows)
    yield from follows(only)


def _trains(rows: list[Row]) -> Iterator[Claim]:
    """Check that SynFlow stays above chance up to the largest ρ of all."""
    present = {row["method"] for row in rows}
    ends = {}
    for name in [name for name in PAPERS if name in present]:
        means = {x: mean(seeds) for x, seeds in by_compression(rows, name).items()}
        ends[name] = max((x for x, y in means.items() if y > above_chance(rows)), default=0.0)
    if "synflow" not in ends:
        return
    text = ", ".join(f"{name} 10^{x:g}" for name, x in ends.items())
    good = all(ends["synflow"] >= x for x in ends.values())
    yield f"SynFlow is trained above chance as far as any: {text}", good


def main(config: Config) -> None:
    """Make the rows, draw both pictures, check the claims."""
    figure("fig1", config, tasks(config), picture, claims)


if __name__ == "__main__":
    run_command(main, Config, "fig1", __doc__)
