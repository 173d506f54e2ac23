"""Make one measurement; `benchmarks.run` starts a new process for each.

    python -m benchmarks.measure steady NETWORK DEVICE REPEATS CONTENDER…
    python -m benchmarks.measure first NETWORK DEVICE CONTENDER
    python -m benchmarks.measure whole NETWORK DEVICE CONTENDER ROUNDS FILE

The last line that is printed is a JSON object.
"""

import contextlib
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import Contender, contend
from benchmarks.shared.records import summary
from experiments.records.machine import busy_cores

FIRST_ROUNDS = 3
LOOP_SECONDS = 2.0  # a turn of a Python loop has as many rounds as fit in about this time
BUDGET = 12.0  # seconds of turns after which a contender stops, but not before its second turn


def counts(contender: Contender) -> dict[str, int]:
    """Return the number of weights and of prunable weights."""
    return {"weights": contender.weights, "prunable": contender.prunable}


def turn(contender: Contender, rounds: int) -> float:
    """Prune once and return the seconds a round."""
    start = time.perf_counter()
    contender.prune(rounds)
    return (time.perf_counter() - start) / rounds


def warm(contender: Contender, rounds: int) -> int:
    """Run once, which compiles, and choose the number of rounds of a turn."""
    contender.tune()
    if not contender.any_rounds:
        contender.prune(rounds)
        return rounds
    contender.prune(1)
    return max(1, min(rounds, round(LOOP_SECONDS / turn(contender, 1))))


def steady(name: str, device: str, repeats: str, *names: str) -> dict[str, Any]:
    """Time rounds after the first call, the contenders by turns, A B C A B C."""
    from benchmarks.peers.floor import BYTES_A_WEIGHT, copy_bandwidth, passes
    from benchmarks.speed.timed_networks import NETWORKS

    busy = [busy_cores()]
    contenders, rounds, found = {}, {}, {}
    for one in names:
        try:
            contenders[one] = contend(one, name, device)
            rounds[one] = warm(contenders[one], NETWORKS[name].turn)
        except Exception as error:  # for example out of memory: the others go on
            contenders.pop(one, None)
            found[one] = {"failed": f"{type(error).__name__}: {error}"[:200]}
    times: dict[str, list[float]] = {one: [] for one in contenders}
    bandwidths = [copy_bandwidth(device)]
    for _ in range(int(repeats)):
        for one, contender in contenders.items():
            if len(times[one]) < 2 or sum(times[one]) * rounds[one] < BUDGET:
                times[one].append(turn(contender, rounds[one]))
    bandwidth = max(*bandwidths, copy_bandwidth(device))
    busy.append(busy_cores())
    for one, contender in contenders.items():
        row = counts(contender) | {"steady": summary(times[one]), "busy cores": busy}
        found[one] = row | {"rounds a turn": rounds[one], **contender.notes()}
    for row in [found["floor"]] if "floor" in contenders else []:
        seconds = passes(row["prunable"], bandwidth)
        row |= {"gradient": row["steady"]["best"], "passes": seconds}
        row |= {"bytes a weight": BYTES_A_WEIGHT, "copy bytes a second": bandwidth}
        row["steady"] |= {key: row["steady"][key] + seconds for key in ("best", "median")}
    return found


def first(name: str, device: str, contender: str) -> dict[str, Any]:
    """Time the first call, of few rounds: with compilation, without imports and weights."""
    ready = contend(contender, name, device)
    start = time.perf_counter()
    ready.on_host(ready.prune(FIRST_ROUNDS))
    seconds = time.perf_counter() - start
    size = ready.temporaries()
    ratio = None if size is None else size / (4 * ready.weights)
    return counts(ready) | {"first": seconds, "temporaries": size, "temporaries ratio": ratio}


def whole(name: str, device: str, contender: str, rounds: str, file: str) -> dict[str, Any]:
    """Build a network, prune it, and write its masks; "end" is the time before they are written."""
    ready = contend(contender, name, device)
    masks = ready.on_host(ready.prune(int(rounds)))
    end = time.monotonic()
    kept = sum(int(np.count_nonzero(mask)) for mask in masks.values())
    bits: dict[str, Any] = {path: np.packbits(mask) for path, mask in masks.items()}
    np.savez(file, **bits)
    return counts(ready) | {"end": end, "kept": kept}


def overlap(one: Path, other: Path) -> float | None:
    """Return the intersection over union of the masks in two files; None if both are empty."""
    both = either = 0
    with np.load(one) as mine, np.load(other) as theirs:
        for path in mine.files:
            both += int(np.bitwise_count(mine[path] & theirs[path]).sum())
            either += int(np.bitwise_count(mine[path] | theirs[path]).sum())
    return both / either if either else None


def plain_convolutions() -> Any:
    """Use XLA's convolutions in JAX networks; do nothing if this process needs no JAX."""
    if any("torch" in name.lower() for name in sys.argv[4:5]) and sys.argv[1] != "steady":
        return contextlib.nullcontext()
    from benchmarks.shared.networks import xla_convolution

    return xla_convolution()


def main(kind: str, *arguments: str) -> None:
    """Measure and print."""
    warnings.simplefilter("ignore")
    with plain_convolutions():
        print(json.dumps({"steady": steady, "first": first, "whole": whole}[kind](*arguments)))


if __name__ == "__main__":
    main(*sys.argv[1:])
