"""Store rows of results with the machine that made them, and summarise times in a row."""

import json
import statistics
from pathlib import Path
from typing import Any

from experiments.records.files import replacing


def load(path: Path, machine: dict[str, Any]) -> list[dict[str, Any]]:
    """Read the rows of a file; none if another machine made them."""
    found = json.loads(path.read_text()) if path.exists() else {}
    return found["rows"] if found.get("machine") == machine else []


def store(path: Path, machine: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Write the rows with the machine that made them."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")


def summary(times: list[float]) -> dict[str, Any]:
    """Return the least time, the median and the number of times."""
    return {"best": min(times), "median": statistics.median(times), "turns": len(times)}
