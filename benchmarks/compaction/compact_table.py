"""The table and the figure of benchmarks.compact, and the ratios that both show."""

from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from benchmarks.shared.labels import TITLES, number
from experiments.records.files import replacing

KINDS = ("infer", "train")
Row = dict[str, Any]


def which(row: Row) -> tuple[str, str]:
    """Name the network of a row, and its convolutions."""
    return row["network"], row["convolution"]


def ratios(rows: list[Row]) -> list[Row]:
    """Add to each row its ratios to the row of the dense network."""
    dense = {which(row): row for row in rows if row.get("form") == "dense"}
    for row in rows:
        if "failed" not in row:
            base = dense[which(row)]
            row["ratios"] = {kind: base[kind]["best"] / row[kind]["best"] for kind in KINDS}
            row["ratios"] |= {k: base[k] / row[k] for k in ("entries", "multiply_adds", "bytes")}
    return rows


def table(rows: list[Row]) -> Table:
    """Make a table of all rows."""
    numbers = ["ρ"]
    found = Table(
        title="Masked and compact networks beside the dense one",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
    )
    for name in ("network", "convs", "form"):
        found.add_column(name, no_wrap=True)
    for name in ("entries,\nM", "multiply-\nadds, M", "infer,\nms", "train,\nms"):
        numbers += [name, "×"]
    for name in numbers:
        found.add_column(name, justify="right")
    for row in rows:
        if "failed" in row:
            found.add_row(row["network"], row["failed"][:40])
            continue
        ways = row["ratios"]
        cells = [f"{row['rho']:g}"]
        for key in ("entries", "multiply_adds"):
            cells += [number(row[key], 1e-6), number(ways[key])]
        for key in KINDS:
            cells += [number(row[key]["best"], 1e3), number(ways[key])]
        found.add_row(TITLES[row["network"]], row["convolution"], row["form"], *cells)
    return found


def draw(rows: list[Row], path: Path) -> None:
    """Draw speed and multiply-adds of compact networks, relative to dense ones, against ρ."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row["network"] for row in rows if "failed" not in row))
    colors = {"infer": "#0072B2", "train": "#D55E00"}
    labels = {"infer": "inference", "train": "training step"}
    kinds = {"product": ("-", "convolutions as products"), "xla": (":", "XLA's convolutions")}
    quiet: dict[Any, Any] = {f"axes.spines.{side}": False for side in ("top", "right")}
    with mpl.rc_context({"font.size": 10, **quiet}):
        figure = Figure(figsize=(3 * len(names), 3.2), layout="constrained")
        panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
        for name, panel in zip(names, panels, strict=True):
            compact = [row for row in rows if row.get("form") == "compact"]
            for kind, (style, said) in kinds.items():
                mine = [row for row in compact if which(row) == (name, kind)]
                rhos = [row["rho"] for row in mine]
                for key, color in colors.items():
                    values = [row["ratios"][key] for row in mine]
                    label = f"{labels[key]}, {said}"
                    panel.loglog(rhos, values, style, color=color, label=label, marker="o", ms=3)
                fewer = [row["ratios"]["multiply_adds"] for row in mine]
                panel.loglog(rhos, fewer, "--", color="#999999", label="multiply-adds, times fewer")
            panel.axhline(1, color="black", lw=0.8)
            panel.set(title=TITLES[name], xlabel="compression ρ")
        panels[0].set_ylabel("dense over compact")
        pairs = zip(*panels[-1].get_legend_handles_labels(), strict=True)
        handles = {label: handle for handle, label in pairs}
        figure.legend(handles.values(), handles, loc="outside lower center", ncols=3, frameon=False)
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=160)
