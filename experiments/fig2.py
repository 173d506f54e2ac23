r"""Figure 2: where do layers collapse?

The fraction of weights that each layer of ImageNet's VGG-19 keeps at initialisation, at
ρ = 4^0 … 4^11, by five methods. SynFlow prunes in 100 rounds, the others in one. The claim: the
others empty whole layers long before they must; SynFlow empties none.

Result: magnitude and GraSP empty a layer from ρ = 4^5 on, random from 4^6, SNIP from 4^7. GraSP and
SNIP lose the largest layer first (the first linear one, 102.8 of 143.7 million weights), magnitude
all three linear layers at once, whose weights start smallest, and random the smallest layer, the
first convolution. SynFlow empties none: at ρ = 4^1 every layer keeps 8 percent of its weights or
more, and at 4^11, where 35 weights are left for 19 layers, every layer has one.

    python -m experiments.fig2 --keep SCORES         # the paper's size; reads fig3's scores
    python -m experiments.fig2 --draw                # from the rows that are stored
    python -m experiments.fig2 --smoke --dataset digits   # test run, seconds, no files

SNIP and GraSP score 100 images of CIFAR-10 at 224×224 (see cells/scored.py); the paper scored
ImageNet's.
"""

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.ticker import MultipleLocator

from experiments.cells.figure import Figure, run
from experiments.cells.initial import Start, network_order
from experiments.cells.scored import METHODS, ScoredConfig, scores
from experiments.draw.panels import LABELS, panels
from experiments.records.console import run_command
from experiments.records.rows import Row
from experiments.training.imp import as_given
from synflow_jax import prune

RATIOS = tuple(4**n for n in range(12))
ROUNDS = 100


def groups(config: ScoredConfig) -> list[list[Row]]:
    """List the settings of the rows; those of a method share its scores."""

    def rounds(method: str, rho: int) -> int:
        return ROUNDS if method == "synflow" and rho > 1 else 1

    return [
        [config.of_method(method, rho=rho, rounds=rounds(method, rho)) for rho in RATIOS]
        for method in METHODS
    ]


def make(config: ScoredConfig, cells: list[Row]) -> Iterator[Row]:
    """Prune by one method to each ρ; one-round runs share their scores."""
    start = Start(config)
    once = any(cell["rounds"] == 1 for cell in cells)
    found = scores(cells[0]["method"], start, config) if once else None
    for cell in cells:
        again = cell["rounds"] > 1
        what = (start.params, start.saliency) if again else (found, as_given)
        info = prune(*what, cell["rho"], cell["rounds"])[1]
        kept = dict(zip(info.layers, info.kept[-1].tolist(), strict=True))
        sizes = dict(zip(info.layers, info.sizes, strict=True))
        order = network_order(kept)
        yield {
            "kept_per_layer": {path: kept[path] for path in order},
            "prunable_per_layer": {path: sizes[path] for path in order},
        }


def collapsed(row: Row) -> list[int]:
    """Number the empty layers, from 1."""
    return [i for i, kept in enumerate(row["kept_per_layer"].values(), start=1) if not kept]


def first_collapse(rows: list[Row], method: str) -> float:
    """Return the smallest ρ at which a method empties a layer; infinity if there is none."""
    lost = [row["rho"] for row in rows if row["method"] == method and collapsed(row)]
    return min(lost, default=float("inf"))


def claims(rows: list[Row]) -> Iterator[tuple[str, bool]]:
    """Check the claims, for each method up to the last ρ that has a row."""
    sizes = rows[0]["prunable_per_layer"].values()
    limit = sum(sizes) / len(sizes)
    ends = {row["method"]: row["rho"] for row in sorted(rows, key=lambda row: row["rho"])}
    reached = ends.get("synflow", 0)
    lost = first_collapse(rows, "synflow")
    if reached:
        highest = max(rho for rho in RATIOS if rho <= min(reached, limit))
        said = f"SynFlow empties no layer up to {highest}{_end(reached)}"
        yield f"{said} (at most {limit:.4g} can be reached)", lost > highest
    for method in METHODS[:-1]:
        if method in ends:
            first = first_collapse(rows, method)
            said = f"{LABELS[method]} empties a layer"
            where = f"first at {first}" if first < math.inf else f"none up to {ends[method]}"
            # Beyond its rows SynFlow is unknown, unless it has lost a layer already.
            known = lost < math.inf or reached >= min(first, RATIOS[-1])
            before = " before SynFlow" if known else ""
            yield (
                f"{said}{before}: {where}{_end(ends[method])}",
                first < (lost if known else math.inf),
            )


def _end(reached: int) -> str:
    return "" if reached == RATIOS[-1] else f", its rows end at {reached}"


def draw(rows: list[Row], path: Path) -> None:
    """Draw a panel for each method, a line for each ρ; dashed with crosses if layers are empty."""
    colors = mpl.colormaps["viridis_r"].resampled(len(RATIOS) + 2)
    floor = 0.3 / max(max(row["prunable_per_layer"].values()) for row in rows)

    def panel(axes: Any, index: int) -> None:
        for row in (row for row in rows if row["method"] == METHODS[index]):
            kept, sizes = (row[name].values() for name in ("kept_per_layer", "prunable_per_layer"))
            part = [k / n if k else None for k, n in zip(kept, sizes, strict=True)]
            color, empty = colors(RATIOS.index(row["rho"]) + 1), collapsed(row)
            x = range(1, len(part) + 1)
            axes.plot(x, part, "--" if empty else "-", marker=".", color=color, lw=1)
            axes.plot(empty, [floor] * len(empty), "x", color=color, ms=4)
        axes.xaxis.set_major_locator(MultipleLocator(6, offset=1))
        axes.set(yscale="log", xlim=(0.3, len(rows[0]["kept_per_layer"]) + 0.7))
        if index == len(METHODS) - 1:
            for power in range(len(RATIOS)):
                axes.plot([], [], ".-", color=colors(power + 1), lw=1, label=f"$4^{{{power}}}$")
            axes.legend(title="ρ", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)

    title = "Dashed: some layer is empty, and a cross at the bottom marks it"
    panels(_titles(rows), panel, path, xlabel="layer", ylabel="fraction kept", title=title)


def _titles(rows: list[Row]) -> list[str]:
    count = Counter(row["method"] for row in rows)
    parts = {method: f" ({count[method]} of {len(RATIOS)} ρ)" for method in METHODS}
    return [
        LABELS[method] + (part if count[method] < len(RATIOS) else "")
        for method, part in parts.items()
    ]


def main(config: ScoredConfig) -> None:
    """Make the missing rows, draw the figure, check its claims."""
    figure = Figure("fig2", groups(config), lambda cells: make(config, cells), draw, claims)
    run(figure, config)


if __name__ == "__main__":
    run_command(main, ScoredConfig, "fig2", __doc__)
