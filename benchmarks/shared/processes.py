"""Run a measurement in a new process, so that nothing is compiled or loaded before it."""

import json
import os
import subprocess
import sys
import time
from typing import Any

# No compiled program is reused, and no framework takes all of an accelerator's memory.
COLD = {
    "JAX_ENABLE_COMPILATION_CACHE": "false",
    "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
}


def in_new_process(arguments: list[str], limit: float, **settings: str) -> dict[str, Any]:
    """Run `python -m` with these arguments and read the JSON object on its last line.

    Args:
      arguments: the module and its arguments.
      limit: seconds after which the process is killed.
      **settings: environment variables, added to those of this process.

    Returns:
      The object, with the time of the start as "started"; or {"failed": reason}.
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
