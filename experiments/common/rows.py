"""Results as JSON lines: one row a line, the file always whole.

A row carries the fingerprint of the settings that made it, so that a run finds what it still has
to do, and rows of other settings in the same file are left alone.
"""

import fcntl
import hashlib
import json
import math
from pathlib import Path
from typing import Any

from experiments.common.files import replacing

Row = dict[str, Any]
MEND = "deleting the line reruns its cell"


def log10_key(rho: float) -> float:
    """Round log10 ρ so that it can be a key: the same compression, however it was written."""
    return round(math.log10(rho), 6)


def fingerprint(settings: Row) -> str:
    """Hash settings to 16 hexadecimal digits, whatever the order of their keys."""
    text = json.dumps(settings, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read(path: Path) -> list[Row]:
    """Read the rows of a file; no file is no rows.

    Args:
      path: a file of JSON objects, one a line.

    Returns:
      The rows in the file's order.

    Raises:
      ValueError: a line is no JSON object with a "config"; the message names the line.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [_parse(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1)]


def _parse(line: str, place: str) -> Row:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{place}: not JSON ({error}); {MEND}") from error
    if not isinstance(row, dict) or "config" not in row:
        raise ValueError(f'{place}: not an object with a "config"; {MEND}')
    return row


def of_configs(path: Path, configs: list[str]) -> list[Row]:
    """Read the rows with these configs, in their order."""
    by_config = {row["config"]: row for row in read(path)}
    return [by_config[config] for config in configs]


def write(path: Path, rows: list[Row]) -> None:
    """Replace a file by one with these rows, in one step: it is never seen half written."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, allow_nan=False) + "\n" for row in rows)


def add(path: Path, rows: list[Row]) -> None:
    """Add rows to a file that other processes may be adding to.

    Args:
      path: the file; its folder is made, and a lock file is left beside it.
      rows: what to add; a row whose config is stored already is left out.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed
        stored = read(path)
        done = {row["config"] for row in stored}
        new = [row for row in rows if row["config"] not in done]
        if new:
            write(path, stored + new)
