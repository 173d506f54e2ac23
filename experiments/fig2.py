r"""Figure 2: where do layers collapse?

The fraction of weights that each layer of ImageNet's VGG-19 keeps at initialisation, at
ρ = 4^0 … 4^11, by five methods. SynFlow prunes in 100 rounds, the others in one. The claim: the
others empty whole layers long before they must; SynFlow empties none.

What came out: magnitude and GraSP empty a layer from ρ = 4^5 on, random from 4^6, SNIP from 4^7.
GraSP and SNIP lose the largest layer first (the first linear one, 102.8 of 143.7 million weights),
magnitude all three linear layers at once, whose weights start smallest, and random the smallest
layer, the first convolution. The command says where SynFlow's rows stand against the claim.

    python -m experiments.fig2 --keep SCORES         # the paper's size; reads fig3's scores
    python -m experiments.fig2 --smoke --dataset digits   # does it run? seconds, no files

SNIP and GraSP score 100 images of CIFAR-10 at 224×224 (see common/scored.py); the paper scored
ImageNet's.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import tyro
from matplotlib.ticker import MultipleLocator

from experiments.common.figure import LABELS, Figure, panels, run
from experiments.common.initial import Start, network_order
from experiments.common.rows import Row
from experiments.common.scored import METHODS, ScoredConfig, scores
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
    """Prune by one method to each ρ; runs of one round share their scores."""
    start = Start(config)
    once = any(cell["rounds"] == 1 for cell in cells)
    found = scores(cells[0]["method"], start, config) if once else None
    for cell in cells:
        again = cell["rounds"] > 1
        what = (start.params, start.saliency) if again else (found, as_they_are)
        info = prune(*what, cell["rho"], cell["rounds"])[1]
        kept = dict(zip(info.layers, info.kept[-1].tolist(), strict=True))
        sizes = dict(zip(info.layers, info.sizes, strict=True))
        order = network_order(kept)
        yield {
            "kept_per_layer": {path: kept[path] for path in order},
            "prunable_per_layer": {path: sizes[path] for path in order},
        }


def as_they_are(scores: Any, masks: Any) -> Any:
    """Score by what is given in place of params."""
    del masks
    return scores


def collapsed(row: Row) -> list[int]:
    """Number the empty layers, from 1."""
    return [i for i, kept in enumerate(row["kept_per_layer"].values(), start=1) if not kept]


def first_collapse(rows: list[Row], method: str) -> float:
    """Return the smallest ρ at which a method empties a layer; infinity if there is none."""
    lost = [row["rho"] for row in rows if row["method"] == method and collapsed(row)]
    return min(lost, default=float("inf"))


def claims(rows: list[Row]) -> Iterator[tuple[str, bool]]:
    """Check what the figure shows."""
    first = {method: first_collapse(rows, method) for method in METHODS}
    limit = sum(rows[0]["prunable_per_layer"].values()) / len(rows[0]["prunable_per_layer"])
    highest = max(row["rho"] for row in rows if row["rho"] <= limit)
    good = first["synflow"] > highest
    yield f"SynFlow empties no layer up to {highest} (at most {limit:.4g} can be reached)", good
    for method in METHODS[:-1]:
        said = f"{LABELS[method]} empties a layer before SynFlow, first at {first[method]}"
        yield said, first[method] < first["synflow"]


def draw(rows: list[Row], path: Path) -> None:
    """Draw a panel a method and a line a ρ; dashed where a layer is empty, a cross at the layer."""
    ratios = sorted({row["rho"] for row in rows})
    colors = mpl.colormaps["viridis_r"].resampled(len(ratios) + 2)
    floor = 0.3 / max(max(row["prunable_per_layer"].values()) for row in rows)

    def panel(axes: Any, index: int) -> None:
        for row in (row for row in rows if row["method"] == METHODS[index]):
            kept, sizes = (row[name].values() for name in ("kept_per_layer", "prunable_per_layer"))
            part = [k / n if k else None for k, n in zip(kept, sizes, strict=True)]
            color, empty = colors(ratios.index(row["rho"]) + 1), collapsed(row)
            power = f"$4^{{{ratios.index(row['rho'])}}}$"
            x = range(1, len(part) + 1)
            axes.plot(x, part, "--" if empty else "-", marker=".", color=color, lw=1, label=power)
            axes.plot(empty, [floor] * len(empty), "x", color=color, ms=4)
        axes.xaxis.set_major_locator(MultipleLocator(6, offset=1))
        axes.set(yscale="log", xlim=(0.3, len(rows[0]["kept_per_layer"]) + 0.7))
        if index == len(METHODS) - 1:
            axes.legend(title="ρ", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)

    title = "Dashed: some layer is empty, and a cross at the bottom marks it"
    names = [LABELS[method] for method in METHODS]
    panels(names, panel, path, xlabel="layer", ylabel="fraction kept", title=title)


def main(config: ScoredConfig) -> None:
    """Make the rows that are missing, draw the figure, and check its claims."""
    figure = Figure("fig2", groups(config), lambda cells: make(config, cells), draw, claims)
    run(figure, config)


if __name__ == "__main__":
    main(tyro.cli(ScoredConfig, prog="python -m experiments.fig2", description=__doc__))
