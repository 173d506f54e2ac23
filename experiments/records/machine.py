"""The machine, package versions, date and commit that a result comes from."""

import dataclasses
import datetime
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = (":!benchmarks/results", ":!experiments/results")  # outputs, not source
BENCHMARKS = ("synflow_jax", "benchmarks", "experiments/models")  # source of a benchmark
EXPERIMENTS = ("synflow_jax", "experiments")
PACKAGES = ("jax", "jaxlib", "flax", "numpy", "torch")


def has_torch() -> bool:
    """Whether PyTorch is installed."""
    return importlib.util.find_spec("torch") is not None


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def busy_cores(seconds: float = 0.5) -> float | None:
    """Measure how many cores other processes keep busy while this one sleeps."""
    before = _processor_times()
    time.sleep(seconds)
    passed = [b - a for a, b in zip(before, _processor_times(), strict=True)]
    idle = sum(passed[3:5])  # idle, and waiting for a disk
    return (1 - idle / sum(passed)) * (os.cpu_count() or 1) if sum(passed) else None


def _processor_times() -> list[int]:
    path = Path("/proc/stat")
    return [int(x) for x in path.read_text().split("\n")[0].split()[1:]] if path.exists() else []


def machine(device: str) -> dict[str, Any]:
    """Describe the machine; rows with equal descriptions are comparable."""
    found = {"device": device, "processor": _processor(), "cores": cores()}
    found["memory GiB"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30)
    if device == "gpu":
        query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        found["accelerator"] = _output(query) or "unknown"
    installed = {name for name in PACKAGES if importlib.util.find_spec(name)}
    versions = {name: importlib.metadata.version(name) for name in PACKAGES if name in installed}
    return found | {"versions": {"python": platform.python_version(), **versions}}


def provenance(config: Any, device: str) -> dict[str, Any]:
    """Collect the settings of an experiment without paths, the machine, the date and the commit."""
    asked = dataclasses.asdict(config).items()
    settings = {name: value for name, value in asked if not isinstance(value, Path)}
    return settings | {"machine": machine(device)} | stamp(EXPERIMENTS)


def stamp(folders: Sequence[str] = BENCHMARKS) -> dict[str, str]:
    """Return the date, the commit and a hash of the Python source.

    Args:
      folders: folders whose Python files are hashed.

    Returns:
      Date, commit (with a + where the files differ from it), and source, the hash.
    """
    commit = _output(["git", "rev-parse", "--short=12", "HEAD"])
    changed = _output(["git", "status", "--porcelain", "--", ".", *RESULTS])
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    name = f"{commit}{'+' if changed else ''}" if commit else "unknown"
    return {"date": day, "commit": name, "source": _source(folders)}


def _source(folders: Sequence[str]) -> str:
    found = hashlib.sha256()
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            found.update(path.read_bytes())
    return found.hexdigest()[:12]


def line(found: dict[str, Any]) -> str:
    """Format a machine on one line."""
    versions = ", ".join(f"{name} {value}" for name, value in found["versions"].items())
    what = f"{found['processor']}, {found['cores']} cores, {found['memory GiB']} GiB"
    return f"{what}{', ' + found['accelerator'] if 'accelerator' in found else ''}; {versions}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [row.partition(":")[2].strip() for row in lines if row.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
