"""Measure the flow of deep networks: how large it is, how exact, and what it costs.

    python -m benchmarks.deep                     # all rows that are not stored yet, about an hour
    python -m benchmarks.deep resnet56 unet:flow  # these networks, or rows, again

Three kinds of rows. flow: log10 R computed plainly and scaled, in float32 and in float64, and
predicted from the mean |w| of each layer; scores of float32 against float64. rounds: masks of
float32 against float64 after 1, 3 and 10 rounds at ρ = 10, and 10 rounds to ρ = 10^5. time: one
value and gradient, scaled against plain. Each row is measured in a new process with a time limit,
and written to benchmarks/results/deep.json at once.
"""

import json
from operator import itemgetter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.deep.deep_networks import NETWORKS
from benchmarks.deep.measurements import LOG2_TO_10, MEASURES, measure
from benchmarks.shared.processes import in_new_process
from experiments.records.files import replacing

RESULTS = Path(__file__).parents[1] / "results" / "deep.json"
KEY = itemgetter("network", "kind")
ROUNDS = ("resnet20", "resnet56", "resnet110", "mlp1000", "residual_mlp400")
TIMES = ("vgg16", *ROUNDS, "resnet50", "densenet121", "unet")
LIMIT = 900.0  # seconds a row


def plan(names: list[str]) -> list[tuple[str, str]]:
    """List the rows of these networks, the quick ones first."""
    known = {"flow": NETWORKS, "time": TIMES, "rounds": ROUNDS}
    rows = [(name, kind) for kind in MEASURES for name in names if name in known[kind]]
    rows += [(row[0], row[2]) for name in names if (row := name.partition(":"))[2]]
    return sorted(rows, key=lambda row: row[0] == "resnet1202")


def make(name: str, kind: str) -> dict[str, Any]:
    """Measure one row in a new process."""
    row = in_new_process(["benchmarks.deep", "--row", name, kind], LIMIT)
    row.pop("started", None)
    return {"network": name, "kind": kind, **row}


def load() -> dict[tuple[str, str], dict[str, Any]]:
    """Read the stored rows."""
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    return {KEY(row): row for row in rows}


def store(row: dict[str, Any]) -> None:
    """Store a row in the results, replacing an earlier one of its network and kind."""
    rows = load() | {KEY(row): row}
    order = [(name, kind) for kind in MEASURES for name in NETWORKS]
    with replacing(RESULTS) as temporary:
        found = [rows[key] for key in order if key in rows]
        temporary.write_text(json.dumps(found, indent=1) + "\n")


def show(rows: list[dict[str, Any]], console: Console) -> None:
    """Print a table for each kind of row."""
    for kind, (columns, cells) in TABLES.items():
        table = Table("network", *columns, title=kind)
        for row in rows:
            if row["kind"] == kind:
                found = [row["failed"]] if "failed" in row else cells(row)
                table.add_row(row["network"], *found)
        if table.row_count:
            console.print(table)


def _flow_cells(row: dict[str, Any]) -> list[str]:
    ways = ("plain 32", "plain 64", "scaled 32", "scaled 64", "mean field 64")
    logs = [f"{float(row[way]) * LOG2_TO_10:.3f}" for way in ways]
    rest = [f"{row[key]:.1e}" if key in row else "" for key in ERRORS]
    return [*logs, *rest, "–".join(f"{share:.3f}" for share in row.get("share of layers", []))]


def _rounds_cells(row: dict[str, Any]) -> list[str]:
    ten = [f"{row[key]['overlap']:.5f}" for key in ("1 round", "3 rounds", "10 rounds")]
    last = row["1e5"]
    ends = ["dead" if value is None else f"{value:.1f}" for value in last["log2 R"]]
    return [*ten, f"{row['10 rounds']['count error']:.1%}", *ends, f"{last['least log2 R']:.1f}"]


def _time_cells(row: dict[str, Any]) -> list[str]:
    seconds = [f"{row[way]['compile']:.2f}" for way in ("plain", "scaled")]
    runs = [f"{1e3 * row[way]['run']:.1f}" for way in ("plain", "scaled")]
    ratios = {key: f"{value:.2f}" for key, value in row["ratios"].items()}
    return [*seconds, ratios["compile"], *runs, ratios["run"], ratios["hlo"]]


ERRORS = ("log2 error", "score error", "conservation error")
FLOW = (
    "plain f32",
    "plain f64",
    "scaled f32",
    "scaled f64",
    "mean field",
    *ERRORS,
    "ΣS/R of layers",
)
OVERLAPS = ("IoU, 1 round", "3", "10", "counts")
TABLES: dict[str, Any] = {
    "flow": (FLOW, _flow_cells),
    "time": (("compile s", "scaled", "ratio", "run ms", "scaled", "ratio", "HLO"), _time_cells),
    "rounds": ((*OVERLAPS, "log2 R at 1e5, f32", "f64", "least"), _rounds_cells),
}


def main(arguments: list[str]) -> None:
    """Run, store, print."""
    if arguments[:1] == ["--row"]:
        print(json.dumps(measure(*arguments[1:])))
        return
    console, known = Console(width=150), load()
    wanted = plan(arguments or list(NETWORKS))
    for name, kind in wanted:
        if arguments or (name, kind) not in known:
            row = make(name, kind)
            store(row)
            console.print(name, kind, row.get("failed", ""), f"{row.get('seconds', LIMIT):.0f} s")
    rows = load()
    show([rows[key] for key in wanted if key in rows], console)
