r"""Figure 3: scores are conserved at hidden units.

For every convolutional unit of ImageNet's VGG-19 that feeds another convolution (4,992 units), the
sum of the scores of its incoming weights and that of its outgoing weights, at initialisation, by
five methods. The claim: both sums are equal, exactly for SynFlow (its biases are 0), nearly for
GraSP and SNIP, and not for random scores. Theory: GraSP's sum in minus its sum out is ‖g_out‖²
minus ‖g_in‖², the squared gradients of the outgoing and the incoming weights; SNIP's sums would be
equal without absolute values.

Result, median over units of the relative gap |in − out| / max(|in|, |out|): SynFlow 6e-8, GraSP
0.012, magnitude 0.017, SNIP 0.51, random 1.0. SynFlow's largest gap is 9e-7. SNIP's sums correlate
over four decades, but absolute values break conservation. Magnitude's sums nearly agree where two
layers have the same number of channels, because they grow with the number of weights.

    python -m experiments.fig3 --keep SCORES         # 19 minutes of processor time on 2 cores
    python -m experiments.fig3 --draw                # from the rows that are stored
    python -m experiments.fig3 --smoke --dataset digits   # test run, seconds, no files

SNIP and GraSP score 100 images of CIFAR-10 at 224×224 (see cells/scored.py); the paper scored
ImageNet's.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import NullFormatter

from experiments.cells.figure import Figure, run
from experiments.cells.initial import Start
from experiments.cells.scored import METHODS, ScoredConfig, Scores, scores
from experiments.draw.panels import LABELS, panels
from experiments.records.console import run_command
from experiments.records.rows import Row

DIGITS = 4


def unit_sums(scores: Scores) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Sum the scores into and out of every unit between two convolutions.

    Args:
      scores: path -> scores (height, width, in, out), in the order of the network; arrays of
        other ranks are left out.

    Returns:
      For each layer, the sums in, Σ over all but the last axis of its kernel, and the sums out, Σ
      over all but the last but one axis of the next kernel.
    """
    kernels = [score.astype(np.float64) for score in scores.values() if score.ndim == 4]
    into = [np.sum(kernel, (0, 1, 2)) for kernel in kernels[:-1]]
    return into, [np.sum(kernel, (0, 1, 3)) for kernel in kernels[1:]]


def relative_gap(into: np.ndarray, out_of: np.ndarray) -> np.ndarray:
    """Return |in − out| / max(|in|, |out|), 0 where both are 0."""
    largest = np.maximum(np.abs(into), np.abs(out_of))
    return np.abs(into - out_of) / np.where(largest > 0, largest, 1)


def make(config: ScoredConfig, cells: list[Row]) -> Iterator[Row]:
    """Sum the scores of one method; gaps are computed before rounding."""
    for cell in cells:
        found = unit_sums(scores(cell["method"], Start(config), config))
        gaps = relative_gap(*map(np.concatenate, found))
        yield {
            "largest_gap": rounded(gaps.max()),
            "median_gap": rounded(np.median(gaps)),
            "into": [[rounded(x) for x in layer] for layer in found[0]],
            "out_of": [[rounded(x) for x in layer] for layer in found[1]],
        }


def rounded(value: Any) -> float:
    """Keep 4 significant digits."""
    return float(f"{value:.{DIGITS - 1}e}")


def claims(rows: list[Row]) -> Iterator[tuple[str, bool]]:
    """Check the claims for the methods that have a row."""
    largest, median = (
        {row["method"]: row[f"{name}_gap"] for row in rows} for name in ("largest", "median")
    )
    if "synflow" in largest:
        gap = largest["synflow"]
        # Sums of up to 2.4 million products in float32.
        yield f"SynFlow is conserved at every unit up to rounding: gaps up to {gap:.1e}", gap < 1e-4
    if "grasp" in median:
        yield f"GraSP is within a tenth in the middle: {median['grasp']:.2g}", median["grasp"] < 0.1
    for method in ("magnitude", "snip", "grasp"):
        if not {method, "random"} <= median.keys():
            continue
        said = f"{LABELS[method]} is nearer to conservation than random scores are, in the middle"
        good = median[method] < median["random"]
        yield f"{said}: {median[method]:.2g} against {median['random']:.2g}", good


def draw(rows: list[Row], path: Path) -> None:
    """Draw a panel for each method, a dot for each unit, coloured by depth."""

    def panel(axes: Any, index: int) -> None:
        row = rows[index]
        into, out_of = (np.abs(np.concatenate(row[name])) for name in ("into", "out_of"))
        depth = np.repeat(np.arange(len(row["into"])), [len(layer) for layer in row["into"]])
        every = np.concatenate([into, out_of])
        ends = [every[every > 0].min() / 1.5, every.max() * 1.5]
        axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends, box_aspect=1)
        axes.scatter(into, out_of, c=depth, s=3, cmap="viridis", lw=0)
        axes.plot(ends, ends, ":", color="black", lw=1)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_minor_formatter(NullFormatter())
        said = f"largest gap {row['largest_gap']:.1e}\nmedian gap {row['median_gap']:.1e}"
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1}
        axes.text(0.03, 0.97, said, transform=axes.transAxes, va="top", fontsize=7, bbox=box)

    panels(
        [LABELS[row["method"]] for row in rows],
        panel,
        path,
        xlabel="score of incoming weights",
        ylabel="score of outgoing weights",
        title="A dot a unit, dark near the input; dotted: conservation; absolute values",
        sharey=False,
    )


def main(config: ScoredConfig) -> None:
    """Make the missing rows, draw the figure, check its claims."""
    groups = [[config.of_method(method)] for method in METHODS]
    run(Figure("fig3", groups, lambda cells: make(config, cells), draw, claims), config)


if __name__ == "__main__":
    run_command(main, ScoredConfig, "fig3", __doc__)
