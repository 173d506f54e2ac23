"""Prune networks of other packages, unchanged: what works, what it takes, how exact it is.

    python -m benchmarks.zoo                      # all networks, about twenty minutes on two cores
    python -m benchmarks.zoo 'linen GRU' keras    # these networks, or those of these packages

Needs the packages of the extra `zoo`; networks of packages that are not installed are left out. For
each network: lines between the package's own model and (params, apply_fn, shape); seconds of the
first and the second call of SynFlow at ρ = 10, plain and in flow mode; whether the number of kept
weights is exact; layers without a kept weight; how far flow is from being conserved; the share of
outputs that still depend on the input; the share of kept kernel weights that the gradient of the
real network reaches at the start; pruned weights that are not 0 after five steps of the package's
own training; and the error of `compact` after pruning whole channels at ρ = 4. Each network is
measured in a process of its own and written to benchmarks/results/zoo.json at once.
"""

import json
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from importlib import metadata
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.shared.processes import COLD, in_new_process
from benchmarks.shared.records import load, store
from benchmarks.zoo.cases import Network, listed
from experiments.records.machine import busy_cores, line, machine, stamp

RESULTS = Path(__file__).parents[1] / "results" / "zoo.json"
LIMIT = 1800.0  # seconds a network
AT_ONCE = 2  # processes: each compiles on one core most of the time


def make(network: Network) -> dict[str, Any]:
    """Measure one network in a new process."""
    names = {"package": network.package, "network": network.name}
    start, busy = time.monotonic(), busy_cores()
    row = in_new_process(["benchmarks.zoo", "--row", network.name], LIMIT, **COLD)
    row.pop("started", None)
    took = {"process seconds": round(time.monotonic() - start, 1), "busy cores": busy}
    return names | stamp() | row | took


def chosen(names: list[str]) -> list[Network]:
    """Choose networks by name or package; of packages that are not installed, none."""
    networks = list(listed().values())
    known = {one for network in networks for one in (network.name, network.package)}
    if unknown := set(names) - known:
        raise SystemExit(f"networks must be among {', '.join(sorted(known))}, got {unknown}")
    return [
        network
        for network in networks
        if not names or network.name in names or network.package in names
    ]


def installed(network: Network) -> bool:
    """Whether the package of a network is here."""
    try:
        metadata.version(network.package)
    except metadata.PackageNotFoundError:
        return False
    return True


def table(rows: list[dict[str, Any]]) -> Table:
    """Make a table of all rows."""
    found = Table(title="Networks of other packages", box=box.SIMPLE_HEAD, collapse_padding=True)
    found.add_column("network", no_wrap=True)
    found.add_column("package", no_wrap=True)
    for name in COLUMNS:
        found.add_column(name, justify="right")
    for row in rows:
        found.add_row(row["network"], f"{row['package']} {row.get('version', '')}", *cells(row))
    return found


COLUMNS = (
    "glue",
    "weights",
    "plain,\ns",
    "again",
    "flow,\ns",
    "again",
    "exact",
    "empty,\nplain",
    "empty,\nflow",
    "gap",
    "outputs",
    "grad",
    "not 0",
    "compact",
    "entries",
)


def cells(row: dict[str, Any]) -> list[str]:
    """Write the numbers of a row, and "–" where there is none."""
    plain, flow = row.get("plain", {}), row.get("flow", {})
    small = row.get("compact", {})
    counts = [way["kept"] == way["asked"] for way in (plain, flow) if "kept" in way]
    outputs = row.get("outputs")
    return [
        str(row.get("glue", "–")),
        _cell(row.get("weights"), ",d"),
        *(_cell(way.get(key), ".2f") for way in (plain, flow) for key in ("first", "second")),
        "–" if not counts else "yes" if all(counts) else "NO",
        *(str(len(way["emptied"])) if "emptied" in way else "–" for way in (plain, flow)),
        _cell(row.get("gap"), ".0e"),
        f"{outputs[1]:.2f}" if isinstance(outputs, list) else "–",
        _cell(row.get("gradient"), ".3f"),
        str(row.get("pruned weights that are not 0", "–")),
        _cell(small.get("gap"), ".0e"),
        f"{small['entries'][0] / max(1, small['entries'][1]):.1f}×" if small else "–",
    ]


def _cell(value: Any, form: str) -> str:
    return f"{value:{form}}" if isinstance(value, int | float) else "–"


def failures(row: dict[str, Any]) -> list[str]:
    """List what failed in a row, and what was warned of."""
    found = [
        f"{key}: {value}" for key, value in row.items() if key in PARTS and isinstance(value, str)
    ]
    for way in ("plain", "flow"):
        part = row.get(way, {})
        found += [f"{way}: {part['failed']}"] if "failed" in part else []
        found += [f"{way}: {said}" for said in part.get("warnings", [])]
    return found + row.get("warnings", [])


PARTS = ("failed", "build", "gap", "gradient", "outputs", "training", "compaction")


def main(arguments: list[str]) -> None:
    """Run, store, print."""
    if arguments[:1] == ["--row"]:
        from benchmarks.zoo.zoo_measure import measure

        print(json.dumps(measure(listed()[arguments[1]])))
        return
    console, where = Console(width=190), machine("cpu")
    console.print(line(where), highlight=False)
    rows = {row["network"]: row for row in load(RESULTS, where)} if arguments else {}
    order = list(listed())
    networks = chosen(arguments)
    here = [network for network in networks if installed(network)]
    for name in sorted({one.package for one in networks} - {one.package for one in here}):
        console.print(f"{name} is not installed: its networks are left out")
    with Progress(console=console, transient=True) as bar, ThreadPoolExecutor(AT_ONCE) as pool:
        jobs = [pool.submit(make, network) for network in here]
        for job in bar.track(as_completed(jobs), total=len(jobs), description="networks"):
            row = job.result()
            rows[row["network"]] = row
            store(
                RESULTS, where, sorted(rows.values(), key=lambda row: order.index(row["network"]))
            )
            said = "; ".join(failures(row))
            console.print(row["network"], row["process seconds"], said[:300], highlight=False)
    console.print(table(list(rows.values())))
    for row in rows.values():
        for said in failures(row):
            console.print(f"{row['network']}: {said}", highlight=False)
