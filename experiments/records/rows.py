"""Results as JSON: {"config": what was asked last, "rows": [one a line]}; the file is always whole.

A row carries the fingerprint of the settings that made it, so that a run finds what it still has
to do, and rows of other settings in the same file are left alone.
"""

import fcntl
import hashlib
import json
import math
from pathlib import Path
from typing import Any

from experiments.records.files import replacing

Row = dict[str, Any]
RESULTS = Path(__file__).parents[1] / "results"  # what is committed


def log10_key(rho: float) -> float:
    """Round log10 ρ so that it can be a key: the same compression, however it was written."""
    return round(math.log10(rho), 6)


def fingerprint(settings: Row) -> str:
    """Hash settings to 16 hexadecimal digits, whatever the order of their keys."""
    text = json.dumps(settings, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def load(path: Path) -> tuple[Row, list[Row]]:
    """Read a file of results; no file is no rows.

    Args:
      path: a JSON object with a "config" and a list "rows" of objects with a "config" each.

    Returns:
      The file's config and its rows, in the file's order.

    Raises:
      ValueError: the file is something else; the message names the line or the row.
    """
    if not path.exists():
        return {}, []
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}); mend it or take it away") from error
    parts = (found.get("config"), found.get("rows")) if isinstance(found, dict) else (None, None)
    config, rows = parts
    if not (isinstance(config, dict) and isinstance(rows, list)):
        raise ValueError(f'{path}: not an object with a "config" and a list of "rows"')
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or "config" not in row:
            hint = "deleting the row makes it anew"
            raise ValueError(f'{path}, row {number}: not an object with a "config"; {hint}')
    return config, rows


def read(path: Path) -> list[Row]:
    """Read the rows of a file: see `load`."""
    return load(path)[1]


def of_configs(path: Path, configs: list[str]) -> list[Row]:
    """Read the rows with these configs, in their order."""
    by_config = {row["config"]: row for row in read(path)}
    return [by_config[config] for config in configs]


def write(path: Path, rows: list[Row], config: Row | None = None) -> None:
    """Replace a file by one with these rows, in one step: it is never seen half written."""
    lines = ",\n".join(json.dumps(row, allow_nan=False) for row in rows)
    head = json.dumps(config or {}, allow_nan=False)
    with replacing(path) as temporary:
        text = f'{{"config": {head},\n"rows": [\n{lines}\n]}}\n'
        temporary.write_text(text, encoding="utf-8")


def add(path: Path, rows: list[Row], config: Row | None = None) -> None:
    """Add rows to a file that other processes may be adding to.

    Args:
      path: the file; its folder is made, and a lock file is left beside it.
      rows: what to add; a row whose config is stored already is left out.
      config: what was asked for, in place of the file's own; None leaves that as it is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed
        before, stored = load(path)
        done = {row["config"] for row in stored}
        new = [row for row in rows if row["config"] not in done]
        if new or (config is not None and config != before):
            write(path, stored + new, before if config is None else config)
