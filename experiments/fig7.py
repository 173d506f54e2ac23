r"""Figure 7: how many rounds are enough, and on which schedule?

SynFlow prunes ImageNet's VGG-19 at initialisation to ρ = 10^0.5 … 10^3 in 1 … 100 rounds. The
figure shows the largest share of the flow that one round removes, ΣS(pruned) / R. While it is below
1, no round can have disconnected the network. The paper's claim: the share falls with the number of
rounds, and the exponential schedule gets below 1 where the linear one does not. The command checks
this on the stored rows, and prints which they are.

Result: on the exponential schedule 30 rounds are below 1 up to ρ = 10^1.5, 50 up to 10^2, and 100
at every ρ (0.68 at 10^3). On the linear one 100 rounds are below 1 at 10^0.5 and 10 alone, and at
14 for 10^3.

    python -m experiments.fig7             # the paper's size: 2,262 rounds
    python -m experiments.fig7 --draw      # from the rows that are stored
    python -m experiments.fig7 --smoke     # test run, seconds

On the exponential schedule the first n of m rounds to ρ are n rounds to ρ^(n/m), so such runs are
made once. Runs of few rounds come first. A stopped sweep continues when it is started again.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from experiments.cells.figure import Figure, run
from experiments.cells.initial import Config, Start
from experiments.draw.panels import panels
from experiments.records.console import run_command
from experiments.records.rows import Row
from synflow_jax import exponential, linear, prune

SCHEDULES = {"linear": linear, "exponential": exponential}
HALF_DECADES = (1, 2, 3, 4, 5, 6)


@dataclasses.dataclass(frozen=True)
class SweepConfig(Config):
    """Settings of the figure."""

    rounds: tuple[int, ...] = (1, 10, 20, 30, 50, 100)
    """Numbers of rounds."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.rounds or min(self.rounds) < 1:
            raise ValueError(f"rounds must be one or more numbers from 1, got {self.rounds}")


def groups(config: SweepConfig) -> list[list[Row]]:
    """List the settings of the rows; a group shares one run, and short runs come first."""
    found: dict[tuple[str, Any], list[Row]] = defaultdict(list)
    for rounds in sorted(set(config.rounds)):
        for half in HALF_DECADES:
            for schedule in SCHEDULES:
                cell = {"schedule": schedule, "log10_rho": half / 2, "rounds": rounds}
                step = Fraction(half, rounds) if schedule == "exponential" else (half, rounds)
                found[schedule, step].append(config.settings(**cell))
    return sorted(found.values(), key=lambda cells: cells[-1]["rounds"])


def make(start: Start, cells: list[Row]) -> Iterator[Row]:
    """Prune once, for the longest run of the group, and read the shorter ones off it."""
    last = max(cells, key=lambda cell: cell["rounds"])
    schedule = SCHEDULES[last["schedule"]]
    rho = 10 ** last["log10_rho"]
    info = prune(start.params, start.saliency, rho, last["rounds"], schedule=schedule)[1]
    shares = np.asarray(info.share, np.float64)
    for cell in cells:
        part = shares[: cell["rounds"]]
        died = int(info.collapsed_at)
        yield {
            "max_prune_to_cut": float(f"{part.max():.6g}"),
            "in_round": int(part.argmax()) + 1,
            "flow_died_in_round": died if died <= cell["rounds"] else 0,
        }


def claims(rows: list[Row]) -> Iterator[tuple[str, bool]]:
    """Check the claims for each schedule, on the rows that it has."""
    for schedule in SCHEDULES:
        lines = curves(rows, schedule)
        if not lines:
            continue
        ends = {rho: (rounds[-1], shares[-1]) for rho, (rounds, shares) in lines.items()}
        few, most = min(ends.values())[0], max(ends.values())[0]
        span = f"{most}" if few == most else f"{few} to {most}"
        every = "every ρ" if len(ends) == len(HALF_DECADES) else f"the {len(ends)} ρ that are there"
        if any(len(rounds) > 1 for rounds, _ in lines.values()):
            falls = all(a >= b for _, shares in lines.values() for a, b in pairwise(shares))
            said = f"{schedule}: the largest share falls as the rounds grow in number, up to {span}"
            yield f"{said}, at {every}", falls
        good = [rho for rho, (_, share) in ends.items() if share < 1]
        which = ", ".join(f"10^{rho:g}" for rho in good) or "none"
        said = f"{schedule}: {span} rounds are certified at {every} (they are at {which})"
        yield said, len(good) == len(ends)


def curves(rows: list[Row], schedule: str) -> dict[float, tuple[list[int], list[float]]]:
    """Gather the rows of a schedule as (rounds, shares) by log10 ρ."""
    found: dict[float, tuple[list[int], list[float]]] = defaultdict(lambda: ([], []))
    for row in sorted(rows, key=lambda row: (row["log10_rho"], row["rounds"])):
        if row["schedule"] == schedule:
            found[row["log10_rho"]][0].append(row["rounds"])
            found[row["log10_rho"]][1].append(row["max_prune_to_cut"])
    return found


def draw(rows: list[Row], path: Path) -> None:
    """Draw a panel for each schedule, a line for each ρ."""
    colors = mpl.colormaps["viridis_r"].resampled(len(HALF_DECADES) + 2)

    def panel(axes: Any, index: int) -> None:
        for place, (rho, line) in enumerate(curves(rows, list(SCHEDULES)[index]).items()):
            axes.plot(*line, "o-", color=colors(place + 1), ms=3, lw=1, label=f"$10^{{{rho:g}}}$")
        axes.axhline(1, color="black", ls=":", lw=1)
        axes.set(yscale="log")
        if index:
            axes.legend(title="ρ", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)

    panels(
        list(SCHEDULES),
        panel,
        path,
        xlabel="rounds",
        ylabel="largest share of the flow",
        title="Below the dotted line no round can have cut the network",
    )


def main(config: SweepConfig) -> None:
    """Make the missing rows, draw the figure, check its claims."""
    start = Start(config)
    run(Figure("fig7", groups(config), lambda cells: make(start, cells), draw, claims), config)


if __name__ == "__main__":
    run_command(main, SweepConfig, "fig7", __doc__)
