"""The table and the figure of benchmarks.run, and the ratios that both show."""

from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from benchmarks.shared.labels import TITLES, number
from experiments.records.files import replacing

Row = dict[str, Any]
COLORS = {
    "ours": "#0072B2",
    "PyTorch": "#D55E00",
    "torch.compile": "#E69F00",
    "naive JAX": "#999999",
}
PANELS = {
    "round": ("a round", "times as fast as PyTorch"),
    "whole": ("a whole job", "times as fast as PyTorch"),
    "over floor": ("a round over the floor", "times as long as the floor"),
}


def best(row: Row, kind: str) -> float | None:
    """Return the least time of a kind, or None if it was not measured."""
    return row.get(kind, {}).get("best")


def ratios(rows: list[Row]) -> list[Row]:
    """Add to each row its ratios to PyTorch's row and to the floor's row of the same network."""
    by_key = {(row["network"], row["contender"]): row for row in rows}
    kinds = {"round": "steady", "first": "first", "whole": "whole"}
    for row in rows:
        peer, floor = (by_key.get((row["network"], name), {}) for name in ("PyTorch", "floor"))
        pairs = {name: (best(peer, kind), best(row, kind)) for name, kind in kinds.items()}
        pairs["over floor"] = best(row, "steady"), best(floor, "steady")
        row["ratios"] = {name: a / b for name, (a, b) in pairs.items() if a and b}
    return rows


def table(rows: list[Row]) -> Table:
    """Make a table of all rows, with a section for each network."""
    found = Table(title="SynFlow to ρ = 100", box=box.SIMPLE_HEAD, pad_edge=False)
    found.caption = (
        "the best of several; ×: times as fast as PyTorch; room: temporaries over weights"
    )
    for name in ("network", "contender"):
        found.add_column(name, no_wrap=True)
    names = ("round ms", "×", "first s", "job s", "×", "room", "over floor")
    for name in names:
        found.add_column(name, justify="right", no_wrap=True)
    previous = None
    for row in rows:
        if previous not in (None, row["network"]):
            found.add_section()
        title = TITLES[row["network"]] if row["network"] != previous else ""
        previous = row["network"]
        found.add_row(title, row["contender"], *_cells(row), style=STYLES.get(row["contender"]))
    return found


STYLES = {"ours": "bold", "floor": "dim"}


def _cells(row: Row) -> list[str]:
    if "failed" in row and "steady" not in row:
        return [row["failed"][:40]]
    ways = row["ratios"] if row["contender"] != "floor" else {}
    job = number(best(row, "whole"))
    return [
        number(best(row, "steady"), 1e3),
        number(ways.get("round")),
        number(best(row, "first")),
        f"({job})" if row.get("made up") else job,
        number(ways.get("whole")),
        number(row.get("temporaries ratio")),
        number(row["ratios"].get("over floor")),
    ]


def draw_ratios(rows: list[Row], path: Path) -> Path | None:
    """Draw a panel of bars for each kind of ratio in the rows.

    Args:
      rows: all rows, with their ratios.
      path: the PNG file to write.

    Returns:
      The path, or None where there is nothing to draw.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    shown = [row for row in rows if row["contender"] in COLORS and "steady" in row]
    panels = [name for name in PANELS if any(name in row["ratios"] for row in shown)]
    if not panels:
        return None
    networks = list(dict.fromkeys(row["network"] for row in shown))
    contenders = [name for name in COLORS if any(row["contender"] == name for row in shown)]
    quiet: dict[Any, Any] = {f"axes.spines.{side}": False for side in ("top", "right", "left")}
    with mpl.rc_context({"font.size": 10, "ytick.major.size": 0, **quiet}):
        height = 1.6 + 0.2 * len(networks) * (len(contenders) + 1)
        figure = Figure(figsize=(4 * len(panels), height), layout="constrained")
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for one, name in zip(axes, panels, strict=True):
            _bars(one, shown, name, networks, contenders)
        axes[0].set_yticks(range(len(networks)), [TITLES[name] for name in networks])
        axes[0].set_ylim(len(networks) - 0.5, -0.5)
        handles = [Patch(color=COLORS[name], label=name) for name in contenders]
        figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=160)
    return path


def _bars(
    axes: Any, rows: list[Row], name: str, networks: list[str], contenders: list[str]
) -> None:
    """Draw one panel: a group of bars a network, on a logarithmic axis that crosses at 1."""
    shown = [one for one in contenders if one != "PyTorch" or name == "over floor"]
    width, values, hatched = 0.8 / len(shown), [], False
    for row in (row for row in rows if row["contender"] in shown and name in row["ratios"]):
        place = shown.index(row["contender"]) - (len(shown) - 1) / 2
        height, value = networks.index(row["network"]) + place * width, row["ratios"][name]
        made_up = name == "whole" and bool(row.get("made up"))
        # On a logarithmic axis a bar begins at 1 and ends at its value, to either side.
        style = {"color": COLORS[row["contender"]], "hatch": "////" if made_up else None}
        axes.barh(height, value - 1, 0.9 * width, 1, edgecolor="white", lw=0, **style)
        _label(axes, value, height)
        values.append(value)
        hatched |= made_up
    axes.axvline(1, color="black", lw=0.8)
    title, label = PANELS[name]
    label += "; hatched: made up from rounds" if hatched else ""
    axes.set(xscale="log", xlim=_limits(name, values))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(label)
    axes.grid(axis="x", alpha=0.25)
    axes.set_axisbelow(True)


def _limits(name: str, values: list[float]) -> tuple[float, float]:
    """Leave room for the numbers beyond the bars; a bar below the floor is shown whole."""
    low = min(0.9, 0.8 * min(values)) if name == "over floor" else min([0.5, *values]) / 2.5
    return low, max([2, *values]) * 2.5


def _label(axes: Any, value: float, height: float) -> None:
    """Write a value at the end of its bar."""
    side = 1 if value >= 1 else -1
    place: dict[str, Any] = {"ha": "left" if side > 0 else "right", "va": "center"}
    offset: dict[str, Any] = {"xytext": (4 * side, 0), "textcoords": "offset points"}
    text = f"{value:.2g}" if value < 100 else f"{value:.0f}"
    axes.annotate(text, (value, height), **offset, **place, fontsize=8, color="#444444")
