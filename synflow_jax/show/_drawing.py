"""How a network is drawn: rows of layers, each as a stretch of a river between its banks.

A layer runs from the units that feed it to those that it feeds. The bed, in grey, is as high as
there are units, by square roots; the water as high as those that flow reaches, and as dark as the
weights are dense. Units stand at the end of their layer, the strongest in the middle.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

BED, NO_FLOW, INK, FAINT = "#ececec", "#d4d4d4", "#222222", "#777777"
FLOWS = ("#ffe0b0", "#f0a030", "#d55e00", "#7a1f00")
WEIGHTS = ("#d8ecf8", "#56b4e9", "#0072b2", "#004c7f")
LONGEST = 26  # letters of a layer's name
ROWS = 128  # of the picture of a layer's units
POWER = 0.5  # of the number of units, in their height
LEAST = 1e-4  # of weights, and of flow: what is less is drawn so


@dataclass(frozen=True)
class Layer:
    """What is drawn of one layer: the shares of the flow of the units on either side."""

    path: str
    weights: int
    kept: int
    feeding: np.ndarray
    fed: np.ndarray


@dataclass(frozen=True)
class Network:
    """One row of the picture."""

    title: str
    layers: tuple[Layer, ...]
    multiply_adds: int
    log2_flow: float

    @property
    def weights(self) -> int:
        """Entries of all layers."""
        return sum(layer.weights for layer in self.layers)

    @property
    def kept(self) -> int:
        """Kept weights of all layers."""
        return sum(layer.kept for layer in self.layers)


@dataclass(frozen=True)
class Look:
    """Sizes that depend on how many layers there are, and on how many units."""

    count: int
    most: int  # units

    @property
    def inches(self) -> float:
        """The width of the picture."""
        return min(max(8.0, 2.0 + 0.62 * self.count), 15.0)

    @property
    def bar(self) -> float:
        """The part of a layer's length that its units take."""
        return min(0.3, 0.15 * self.count / self.inches)

    @property
    def letters(self) -> float:
        """The size of numbers of four digits that stand side by side."""
        return min(9.0, 72 * (self.inches - 0.3) / self.count * 0.29)


def draw(networks: Sequence[Network]) -> Any:
    """Draw one row a network, on one scale, and a key beneath."""
    mpl = _matplotlib()
    from matplotlib.figure import Figure

    dense = networks[0]
    most = max(side.size for layer in dense.layers for side in (layer.feeding, layer.fed))
    look, keys = Look(len(dense.layers), most), ("key of flow", "key of weights")
    with mpl.rc_context(_style()):
        figure = Figure(figsize=(look.inches, 7.0), layout="constrained")
        cells: Any = [*([network.title] * 2 for network in networks), list(keys)]
        axes = figure.subplot_mosaic(cells, height_ratios=[*[1] * len(networks), 0.05])
        for network in networks:
            _row(axes[network.title], network, look)
            axes[network.title].set_title(totals(network, dense), loc="right", color=FAINT)
        _name(axes[networks[-1].title], dense, look)
        _key(axes[keys[0]], _flow_colours, "share of the flow, a unit")
        _key(axes[keys[1]], _weight_colours, "kept of the weights, a layer")
    return figure


def _matplotlib() -> Any:
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise ImportError(
            "visualize draws with matplotlib: pip install 'synflow_jax[plot]'"
        ) from error
    return mpl


def _style() -> dict[Any, Any]:
    sides = {f"axes.spines.{side}": False for side in ("top", "right", "bottom", "left")}
    more = {"xtick.major.size": 0, "axes.titlesize": 10, "svg.hashsalt": "synflow_jax"}
    return {"font.size": 9, "text.color": INK, "xtick.color": INK, **sides, **more}


def height(count: Any) -> Any:
    """Give the height of so many units."""
    return np.asarray(count, float) ** POWER


def _row(axes: Any, network: Network, look: Look) -> None:
    """Draw a network from left to right."""
    top = float(height(look.most)) / 2
    start = network.layers[0].feeding
    _count(axes, 0.0, start, look)
    for place, layer in enumerate(network.layers):
        _stretch(axes, place, layer, look)
        _units(axes, place, layer.fed, look)
        _count(axes, place + 1 - look.bar / 2, layer.fed, look)
    axes.set(xlim=(0, look.count), ylim=(-1.03 * top, 1.25 * top), xticks=[], yticks=[])
    axes.set_title(network.title, loc="left", fontsize=14, fontweight="bold")


def _count(axes: Any, x: float, shares: np.ndarray, look: Look) -> None:
    """Write above units how many have flow."""
    y = float(height(shares.size)) / 2 + 0.03 * float(height(look.most))
    live = str(np.count_nonzero(shares))
    axes.text(x, y, live, ha="center", va="bottom", fontsize=look.letters)


def _stretch(axes: Any, place: int, layer: Layer, look: Look) -> None:
    """Draw the weights of a layer: the bed, and the water in it."""
    x = np.linspace(-0.005, 1.005 - look.bar, 16)  # beneath the units, so that no gap shows
    ease = 0.5 - 0.5 * np.cos(np.linspace(0, np.pi, len(x)))
    shade = _weight_colours(np.array(layer.kept / max(layer.weights, 1)))
    counts = [(side.size, np.count_nonzero(side)) for side in (layer.feeding, layer.fed)]
    for (start, end), colour in zip(zip(*counts, strict=True), (BED, shade), strict=True):
        edge = (height(start) * (1 - ease) + height(end) * ease) / 2
        if start and end:
            axes.fill_between(place + x, -edge, edge, color=colour, lw=0)


def _units(axes: Any, place: int, shares: np.ndarray, look: Look) -> None:
    """Draw the units of a layer, the strongest in the middle."""
    if not shares.size:
        return
    half = float(height(shares.size)) / 2
    away = np.abs(np.linspace(-half, half, ROWS))
    ranks = np.minimum((2 * away) ** (1 / POWER), shares.size - 1).astype(int)
    colours = _flow_colours(np.sort(shares)[::-1][ranks])
    extent = place + 1 - look.bar, place + 1, -half, half
    axes.imshow(colours[:, None], extent=extent, aspect="auto", interpolation="nearest", zorder=2)


def _depth(values: np.ndarray) -> np.ndarray:
    """Map LEAST to 0 and 1 to 1, on a log scale."""
    return 1 - np.log10(np.clip(values, LEAST, 1)) / math.log10(LEAST)


def _flow_colours(shares: np.ndarray) -> np.ndarray:
    """Give each unit a colour, and those without flow grey."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgba

    colours = LinearSegmentedColormap.from_list("flow", FLOWS)(_depth(shares))
    return np.where(shares[..., None] > 0, colours, to_rgba(NO_FLOW))


def _weight_colours(densities: np.ndarray) -> np.ndarray:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("weights", WEIGHTS)(_depth(densities))


def _name(axes: Any, network: Network, look: Look) -> None:
    """Write the names of the layers beneath a row."""
    names = [_short(layer.path) for layer in network.layers]
    size = min(9.0, 1.25 * look.letters)
    room = 72 * look.inches / look.count / (0.65 * size)  # letters side by side
    turn = {"rotation": 90} if max(map(len, names)) > room else {}
    axes.set_xticks(np.arange(look.count) + 0.5 - look.bar / 2, names, fontsize=size, **turn)


def _short(path: str) -> str:
    """Leave out what says nothing, and the beginning of what is long."""
    name = path.removeprefix("params/").removesuffix("/kernel")
    return name if len(name) <= LONGEST else "…" + name[1 - LONGEST :]


def _key(axes: Any, colours: Any, title: str) -> None:
    """Draw a scale of colours."""
    low = math.log10(LEAST)
    values = 10 ** np.linspace(low, 0, 256)
    axes.imshow(colours(values)[None], extent=(low, 0, 0, 1), aspect="auto")
    ticks = range(round(low), 1)
    axes.set_xticks(ticks, [f"$10^{{{k}}}$" if k else "1" for k in ticks], fontsize=8)
    axes.set_yticks([])
    axes.set_title(title, fontsize=8.5, color=FAINT)


def totals(network: Network, dense: Network) -> str:
    """Say what a network comes to, and how much less that is than at first."""
    kept = f", {_number(network.kept)} kept" if network.kept < network.weights else ""
    weights = f"{_number(network.weights)} weights{_less(dense.weights, network.weights)}{kept}"
    less = _less(dense.multiply_adds, network.multiply_adds)
    products = f"{_number(network.multiply_adds)} multiply-adds{less}"
    flow = f"flow $2^{{{network.log2_flow:.1f}}}$" if network.log2_flow > -math.inf else "no flow"
    return " · ".join([weights, products, flow])


def _less(before: int, after: int) -> str:
    return f" ({before / after:.3g} × fewer)" if 0 < after < before else ""


def _number(value: int) -> str:
    """Write a number whole below 10,000, and to three digits with a letter above."""
    if value < 10_000:
        return f"{value:,}"
    power = min((len(f"{float(f'{value:.3g}'):.0f}") - 1) // 3, 5)
    return f"{value / 1000**power:.3g} {' kMGTP'[power]}"
