"""Measurements in processes of their own, and where their rows are kept."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from experiments.records.files import replacing

# Nothing compiled is found from before, and no framework takes all of an accelerator's memory.
COLD = {
    "JAX_ENABLE_COMPILATION_CACHE": "false",
    "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
}


def fresh(arguments: list[str], limit: float, **settings: str) -> dict[str, Any]:
    """Run `python -m` with these arguments and read the JSON object on its last line.

    Args:
      arguments: the module and what it is given.
      limit: seconds until it is killed.
      **settings: variables of its environment, beside this process's own.

    Returns:
      The object and, as "started", when the process did; or {"failed": why}.
    """
    command, env = [sys.executable, "-m", *arguments], os.environ | settings
    started = time.monotonic()  # the same clock in all processes of a machine
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, env=env)
    except subprocess.TimeoutExpired:
        return {"failed": f"more than {limit:.0f} seconds"}
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        return {"failed": last[0]}
    return {**json.loads(done.stdout.splitlines()[-1]), "started": started}


def load(path: Path, machine: dict[str, Any]) -> list[dict[str, Any]]:
    """Read the rows of a file, unless another machine made them."""
    found = json.loads(path.read_text()) if path.exists() else {}
    return found["rows"] if found.get("machine") == machine else []


def store(path: Path, machine: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Write the rows beside the machine that made them."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
