r"""Figure 4: the larger a layer, the lower its scores.

The mean score of each of the 19 layers of ImageNet's VGG-19 at initialisation against the inverse
of the layer's size, by five methods. The claim: conserved scores have the same sum in every layer,
so the mean is that sum over the size, a line of slope 1 in logarithms; that is why one competition
empties the largest layer first. Theory: slope 1 exactly for SynFlow (its biases are 0) and near 1
for GraSP, whose sums are nearly equal. Magnitude's mean is √(2/π) times the deviation of the
initialisation, whatever the size. The mean of random scores has expectation 0, and its absolute
value falls as 1/√size. SNIP's sums would be equal without absolute values.

Result, slopes over 19 layers: SynFlow 1.000000, GraSP 1.027, random 0.695 (theory 1/2; the rest is
chance), SNIP 0.510, magnitude 0.206. SNIP's slope is below the claim, because absolute values do
not cancel, above all in large layers.

    python -m experiments.fig4 --keep SCORES         # seconds after fig3, which keeps the scores
    python -m experiments.fig4 --draw                # from the rows that are stored
    python -m experiments.fig4 --smoke --dataset digits   # test run, seconds, no files

SNIP and GraSP score 100 images of CIFAR-10 at 224×224 (see cells/scored.py); the paper scored
ImageNet's.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from experiments.cells.figure import Figure, run
from experiments.cells.initial import Start
from experiments.cells.scored import METHODS, ScoredConfig, scores
from experiments.draw.panels import LABELS, panels
from experiments.records.console import run_command
from experiments.records.rows import Row


def make(config: ScoredConfig, cells: list[Row]) -> Iterator[Row]:
    """Average the scores of one method, layer by layer."""
    for cell in cells:
        found = scores(cell["method"], Start(config), config)
        means = {path: float(np.mean(s, dtype=np.float64)) for path, s in found.items()}
        yield {
            "prunable_per_layer": {path: score.size for path, score in found.items()},
            "mean_per_layer": {path: float(f"{mean:.7g}") for path, mean in means.items()},
        }


def points(row: Row) -> tuple[np.ndarray, np.ndarray]:
    """Return 1/size and |mean score| of every layer."""
    sizes, means = (np.array([*row[f"{name}_per_layer"].values()]) for name in ("prunable", "mean"))
    return 1 / sizes, np.abs(means)


def slope(row: Row) -> float:
    """Fit log |mean score| = slope · log 1/size + a constant by least squares."""
    inverse, mean = points(row)
    return float(np.polyfit(np.log(inverse), np.log(mean), 1)[0])


def claims(rows: list[Row]) -> Iterator[tuple[str, bool]]:
    """Check the claims for the methods that have a row."""
    slopes = {row["method"]: slope(row) for row in rows}
    # The sums of layers agree to float32's rounding, some 1e-6.
    if "synflow" in slopes:
        yield f"SynFlow has slope 1: {slopes['synflow']:.6f}", abs(slopes["synflow"] - 1) < 1e-4
    for method in (method for method in ("snip", "grasp") if method in slopes):
        near = abs(slopes[method] - 1) < 0.2
        yield f"{LABELS[method]} has a slope within 0.2 of 1: {slopes[method]:.3f}", near
    for method in (method for method in ("magnitude", "random") if method in slopes):
        far = slopes[method] < 0.8
        yield f"{LABELS[method]} has a slope below 0.8: {slopes[method]:.3f}", far


def draw(rows: list[Row], path: Path) -> None:
    """Draw a panel for each method, a dot for each layer coloured by depth, a line of slope 1."""

    def panel(axes: Any, index: int) -> None:
        inverse, mean = points(rows[index])
        mean = mean / np.exp(np.mean(np.log(mean)))  # panels share one scale
        axes.scatter(inverse, mean, c=np.arange(len(mean)), s=16, cmap="viridis")
        ends = np.array([inverse.min(), inverse.max()])
        middle = np.exp(np.mean(np.log(inverse)))
        axes.plot(ends, ends / middle, ":", color="black", lw=1)
        axes.set(xscale="log", yscale="log")
        said = f"slope {slope(rows[index]):.3f}"
        axes.text(0.04, 0.96, said, transform=axes.transAxes, va="top", fontsize=8)

    panels(
        [LABELS[row["method"]] for row in rows],
        panel,
        path,
        xlabel="1 / weights of the layer",
        ylabel="mean score of a weight",
        title="A dot a layer, dark near the input; dotted: slope 1; means in units of their middle",
    )


def main(config: ScoredConfig) -> None:
    """Make the missing rows, draw the figure, check its claims."""
    groups = [[config.of_method(method)] for method in METHODS]
    run(Figure("fig4", groups, lambda cells: make(config, cells), draw, claims), config)


if __name__ == "__main__":
    run_command(main, ScoredConfig, "fig4", __doc__)
