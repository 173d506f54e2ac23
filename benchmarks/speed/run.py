r"""How long does SynFlow take, beside PyTorch, beside JAX with a sort, and beside the floor?

    python -m benchmarks.run                  # five networks on the CPU, about ten minutes
    python -m benchmarks.run --quick          # a smoke test: one small network, half a minute
    python -m benchmarks.run --device gpu     # beside torch.compile too, and three larger networks
    python -m benchmarks.run --networks vgg16 resnet20 --again

Needs `pip install -e '.[benchmarks]'`; without PyTorch its rows are left out. Prunes at ρ = 100,
float32 with TF32 off. All contenders have the same weights; what each of them does is written in
benchmarks/peers/. ViT-B/16 is pruned in flow mode by ours and as it is by the others, so that only
its times compare. In plain float32 the flow of ResNet-110 and of ResNet-50 overflows, and the masks
of the others are empty (PyTorch) or mean nothing: see kept, asked and overlap in the rows. The
columns:

- round: milliseconds after the first call, all contenders by turns in one process; a turn prunes to
  ρ in several rounds, and its time is divided by their number. PyTorch runs on one thread or on all
  cores, whichever is faster. The best turn is shown and used in ratios.
- first: seconds of a call of three rounds in a new process, with compilation, from weights to masks
  on the host.
- job: seconds of 100 rounds, from the start of a new process to masks on the host; in brackets
  where a run would take too long and the time is estimated from the two columns before ("made up"
  in the rows).
- room: bytes that the compiled program (ours: the whole loop) or, on a GPU, PyTorch needs beside
  weights and masks, over the bytes of the weights.
- floor: one gradient of the flow and ten bytes a weight at the bandwidth of a copy: see
  benchmarks/peers/floor.py.

Writes run_cpu.json (or run_gpu.json) row by row, and run_cpu.png. A run does not repeat what an
earlier run of the same source on the same machine has measured.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.peers import kept_after
from benchmarks.shared.processes import COLD, in_new_process
from benchmarks.shared.records import store, summary
from benchmarks.speed.measure import FIRST_ROUNDS, overlap
from benchmarks.speed.run_steps import (
    CONTENDERS,
    NETWORKS,
    Config,
    Rows,
    Step,
    known,
    measured,
    plan,
)
from benchmarks.speed.run_table import draw_ratios, ratios, table
from experiments.records.console import terminal
from experiments.records.machine import has_torch, line, machine, stamp

PLATFORMS = {"cpu": "cpu", "gpu": "cuda"}
LIMIT = 900.0  # seconds a measurement
JOB_LIMIT = 60.0  # seconds of steady rounds; a longer job is estimated, not run


def perform(step: Step, rows: Rows, config: Config, folder: Path) -> None:
    """Make one measurement and enter it in the rows."""
    env = COLD | {"JAX_PLATFORMS": PLATFORMS[config.device]}
    common = ["benchmarks.speed.measure", step.kind, step.network, config.device]
    if step.kind == "steady":
        turns = str(2 if config.quick else config.turns)
        found = in_new_process([*common, turns, *config.contenders], LIMIT, **env)
        for name in config.contenders:
            new = found if "failed" in found else found[name]
            names = {"network": step.network, "contender": name}
            rows[step.network, name] = names | stamp() | new
        return
    row = rows[step.network, step.contender]
    if "threads" in row:
        env["OMP_NUM_THREADS"] = str(row["threads"])

    def start(*arguments: str) -> dict[str, Any]:
        return in_new_process([*common, step.contender, *arguments], LIMIT, **env)

    if step.kind == "first":
        _enter(row, "first", start())
    elif step.contender != "ours" and config.rounds * row["steady"]["best"] > JOB_LIMIT:
        rest = (config.rounds - FIRST_ROUNDS) * row["steady"]["best"]
        _enter(row, "whole", {"whole": row["first"]["best"] + rest, "made up": True})
    else:
        _enter(row, "whole", _whole(step, config.rounds, folder, start))


def _whole(step: Step, rounds: int, folder: Path, start: Any) -> dict[str, Any]:
    """Run a whole job, start(rounds, file of masks), and compare its masks with ours."""
    file, ours = (folder / f"{step.network}-{name}.npz" for name in (step.contender, "ours"))
    found = start(str(rounds), str(file))
    if "failed" in found:
        return found
    asked = kept_after(1, 1, found["prunable"])
    shared = overlap(file, ours) if ours.exists() else None
    seconds = found["end"] - found["started"]
    return found | {"whole": seconds, "asked": asked, "overlap": shared, "rounds": rounds}


def _enter(row: dict[str, Any], kind: str, found: dict[str, Any]) -> None:
    """Add one time to a row, with the other results of its measurement."""
    for size in ("weights", "prunable"):
        if found.get(size, row.get(size)) != row.get(size):
            found = {"failed": f"its network has {found[size]} {size}, not {row[size]}"}
    if "failed" not in found:
        times = [*row.get(kind, {}).get("times", []), found.pop(kind)]
        row[kind] = summary(times) | {"times": times}
    row |= {key: value for key, value in found.items() if key not in ("started", "end")}


def save(config: Config, rows: Rows, where: dict[str, Any]) -> list[dict[str, Any]]:
    """Write the rows in the order of the networks, with their ratios."""
    order = [(n, c) for n in NETWORKS[config.device] for c in CONTENDERS[config.device]]
    found = ratios([rows[key] for key in order if key in rows])
    store(config.path, where, found)
    return found


def run(config: Config, console: Console) -> None:
    """Measure what is missing, write the rows after each measurement, and show the table."""
    where, steps = machine(config.device), plan(config)
    rows, start = known(config, steps, where), time.monotonic()
    console.print(line(where), stamp(), highlight=False)
    if not has_torch():
        console.print("PyTorch is not installed: its rows are left out")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with (
        tempfile.TemporaryDirectory() as folder,
        Progress(*columns, TimeElapsedColumn(), console=console) as progress,
    ):
        task = progress.add_task("start", total=len(steps))
        for step in steps:
            progress.update(task, description=" ".join(step))
            late = time.monotonic() - start > 60 * config.minutes
            if not measured(step, rows, config) and not late:
                perform(step, rows, config, Path(folder))
                save(config, rows, where)
            progress.advance(task)
    finish(config, save(config, rows, where), console)


def finish(config: Config, rows: list[dict[str, Any]], console: Console) -> None:
    """Show the table, warn of busy cores, and draw the figure."""
    console.print(table(rows))
    if any(max(row.get("busy cores") or [0]) > 0.25 for row in rows):
        console.print('Other processes kept cores busy meanwhile: see "busy cores" in the rows')
    console.print("rows:", str(config.path))
    if figure := draw_ratios(rows, config.path.with_suffix(".png")):
        console.print("figure:", str(figure))


def main() -> None:
    """Read the arguments and run."""
    import tyro

    run(tyro.cli(Config, prog="python -m benchmarks.run"), terminal())


if __name__ == "__main__":
    main()
