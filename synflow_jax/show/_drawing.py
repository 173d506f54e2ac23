"""The drawing of networks: one row a network, one band a layer.

A band runs from the input units of a layer to its output units. The grey band is as high as the
square root of the number of units; the blue band in it counts only units with flow, and is the
darker the larger the density of the layer. A bar at its end shows the output units, coloured by
their flow, those with the most in the middle.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

GREY, NO_FLOW, INK, FAINT = "#ececec", "#d4d4d4", "#222222", "#777777"
FLOWS = ("#ffe0b0", "#f0a030", "#d55e00", "#7a1f00")
WEIGHTS = ("#d8ecf8", "#56b4e9", "#0072b2", "#004c7f")
LONGEST = 26  # letters of a layer's name
ROWS = 128  # pixels of the bar of a layer's units
POWER = 0.5  # the height of n units is n^POWER
LEAST = 1e-4  # smaller densities and flow shares have the same colour


@dataclass(frozen=True)
class Layer:
    """What is drawn of one layer.

    Attributes:
      path: of its kernel.
      weights: the number of its weights.
      kept: the number of its kept weights.
      inputs: the flow share of each input unit.
      outputs: the flow share of each output unit.
    """

    path: str
    weights: int
    kept: int
    inputs: np.ndarray
    outputs: np.ndarray


@dataclass(frozen=True)
class Network:
    """One row of the picture."""

    title: str
    layers: tuple[Layer, ...]
    multiply_adds: int
    log2_flow: float

    @property
    def weights(self) -> int:
        """The number of weights of all layers."""
        return sum(layer.weights for layer in self.layers)

    @property
    def kept(self) -> int:
        """The number of kept weights of all layers."""
        return sum(layer.kept for layer in self.layers)


@dataclass(frozen=True)
class Sizes:
    """Sizes that depend on the numbers of layers and units.

    Attributes:
      count: the number of layers.
      most: the largest number of units of a layer.
    """

    count: int
    most: int

    @property
    def inches(self) -> float:
        """The width of the picture."""
        return min(max(8.0, 2.0 + 0.62 * self.count), 15.0)

    @property
    def bar(self) -> float:
        """The width of the bar of units, as a part of a layer's width."""
        return min(0.3, 0.15 * self.count / self.inches)

    @property
    def letters(self) -> float:
        """The font size at which numbers of four digits fit side by side."""
        return min(9.0, 72 * (self.inches - 0.3) / self.count * 0.29)


def draw(networks: Sequence[Network]) -> Any:
    """Draw one row a network, all on one scale, and the colour keys below."""
    mpl = _matplotlib()
    from matplotlib.figure import Figure

    dense = networks[0]
    most = max(side.size for layer in dense.layers for side in (layer.inputs, layer.outputs))
    sizes, keys = Sizes(len(dense.layers), most), ("key of flow", "key of weights")
    with mpl.rc_context(_style()):
        figure = Figure(figsize=(sizes.inches, 7.0), layout="constrained")
        cells: Any = [*([network.title] * 2 for network in networks), list(keys)]
        axes = figure.subplot_mosaic(cells, height_ratios=[*[1] * len(networks), 0.05])
        for network in networks:
            _row(axes[network.title], network, sizes)
            axes[network.title].set_title(totals(network, dense), loc="right", color=FAINT)
        _name(axes[networks[-1].title], dense, sizes)
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
    """Return the height of a number of units."""
    return np.asarray(count, float) ** POWER


def _row(axes: Any, network: Network, sizes: Sizes) -> None:
    """Draw one network from left to right."""
    top = float(height(sizes.most)) / 2
    start = network.layers[0].inputs
    _count(axes, 0.0, start, sizes)
    for place, layer in enumerate(network.layers):
        _band(axes, place, layer, sizes)
        _units(axes, place, layer.outputs, sizes)
        _count(axes, place + 1 - sizes.bar / 2, layer.outputs, sizes)
    axes.set(xlim=(0, sizes.count), ylim=(-1.03 * top, 1.25 * top), xticks=[], yticks=[])
    axes.set_title(network.title, loc="left", fontsize=14, fontweight="bold")


def _count(axes: Any, x: float, shares: np.ndarray, sizes: Sizes) -> None:
    """Write above the units of a layer how many of them have flow."""
    y = float(height(shares.size)) / 2 + 0.03 * float(height(sizes.most))
    live = str(np.count_nonzero(shares))
    axes.text(x, y, live, ha="center", va="bottom", fontsize=sizes.letters)


def _band(axes: Any, place: int, layer: Layer, sizes: Sizes) -> None:
    """Draw the weights of a layer: a grey band for all units, a blue one for those with flow."""
    x = np.linspace(-0.005, 1.005 - sizes.bar, 16)  # overlaps the bars, so that no gap shows
    ease = 0.5 - 0.5 * np.cos(np.linspace(0, np.pi, len(x)))
    shade = _weight_colours(np.array(layer.kept / max(layer.weights, 1)))
    counts = [(side.size, np.count_nonzero(side)) for side in (layer.inputs, layer.outputs)]
    for (start, end), colour in zip(zip(*counts, strict=True), (GREY, shade), strict=True):
        edge = (height(start) * (1 - ease) + height(end) * ease) / 2
        if start and end:
            axes.fill_between(place + x, -edge, edge, color=colour, lw=0)


def _units(axes: Any, place: int, shares: np.ndarray, sizes: Sizes) -> None:
    """Draw the bar of the output units of a layer, those with the most flow in the middle."""
    if not shares.size:
        return
    half = float(height(shares.size)) / 2
    away = np.abs(np.linspace(-half, half, ROWS))
    ranks = np.minimum((2 * away) ** (1 / POWER), shares.size - 1).astype(int)
    colours = _flow_colours(np.sort(shares)[::-1][ranks])
    extent = place + 1 - sizes.bar, place + 1, -half, half
    axes.imshow(colours[:, None], extent=extent, aspect="auto", interpolation="nearest", zorder=2)


def _log_scale(values: np.ndarray) -> np.ndarray:
    """Map LEAST to 0 and 1 to 1, on a log scale."""
    return 1 - np.log10(np.clip(values, LEAST, 1)) / math.log10(LEAST)


def _flow_colours(shares: np.ndarray) -> np.ndarray:
    """Return the colour of each unit by its flow share, grey for units without flow."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgba

    colours = LinearSegmentedColormap.from_list("flow", FLOWS)(_log_scale(shares))
    return np.where(shares[..., None] > 0, colours, to_rgba(NO_FLOW))


def _weight_colours(densities: np.ndarray) -> np.ndarray:
    """Return the colour of each density."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("weights", WEIGHTS)(_log_scale(densities))


def _name(axes: Any, network: Network, sizes: Sizes) -> None:
    """Write the names of the layers below a row, turned if they are too long."""
    names = [_short(layer.path) for layer in network.layers]
    size = min(9.0, 1.25 * sizes.letters)
    room = 72 * sizes.inches / sizes.count / (0.65 * size)  # letters side by side
    turn = {"rotation": 90} if max(map(len, names)) > room else {}
    axes.set_xticks(np.arange(sizes.count) + 0.5 - sizes.bar / 2, names, fontsize=size, **turn)


def _short(path: str) -> str:
    """Shorten a path: without params/ and /kernel, and without the start of a long name."""
    name = path.removeprefix("params/").removesuffix("/kernel")
    return name if len(name) <= LONGEST else "…" + name[1 - LONGEST :]


def _key(axes: Any, colours: Any, title: str) -> None:
    """Draw the key of a scale of colours."""
    low = math.log10(LEAST)
    values = 10 ** np.linspace(low, 0, 256)
    axes.imshow(colours(values)[None], extent=(low, 0, 0, 1), aspect="auto")
    ticks = range(round(low), 1)
    axes.set_xticks(ticks, [f"$10^{{{k}}}$" if k else "1" for k in ticks], fontsize=8)
    axes.set_yticks([])
    axes.set_title(title, fontsize=8.5, color=FAINT)


def totals(network: Network, dense: Network) -> str:
    """Write the weights, multiply-adds and flow of a network, compared with the dense one."""
    kept = f", {_number(network.kept)} kept" if network.kept < network.weights else ""
    fewer = _reduction(dense.weights, network.weights)
    weights = f"{_number(network.weights)} weights{fewer}{kept}"
    fewer = _reduction(dense.multiply_adds, network.multiply_adds)
    products = f"{_number(network.multiply_adds)} multiply-adds{fewer}"
    flow = f"flow $2^{{{network.log2_flow:.1f}}}$" if network.log2_flow > -math.inf else "no flow"
    return " · ".join([weights, products, flow])


def _reduction(before: int, after: int) -> str:
    return f" ({before / after:.3g} × fewer)" if 0 < after < before else ""


def _number(value: int) -> str:
    """Write a number in full below 10,000, and with three digits and a letter above."""
    if value < 10_000:
        return f"{value:,}"
    power = min((len(f"{float(f'{value:.3g}'):.0f}") - 1) // 3, 5)
    return f"{value / 1000**power:.3g} {' kMGTP'[power]}"
