"""Files of results, as JSON: {"config": settings of the last run, "rows": [one a line]}.

A row has the fingerprint of the settings that made it, so that a run finds which rows are missing
and leaves rows of other settings alone. Files are replaced atomically.
"""

import fcntl
import hashlib
import json
import math
from pathlib import Path
from typing import Any

from experiments.records.files import replacing

Row = dict[str, Any]
RESULTS = Path(__file__).parents[1] / "results"  # the committed ones


def log10_key(rho: float) -> float:
    """Round log10 ρ to 6 digits, so that equal ratios have equal keys."""
    return round(math.log10(rho), 6)


def fingerprint(settings: Row) -> str:
    """Hash settings to 16 hexadecimal digits; the order of the keys does not matter."""
    text = json.dumps(settings, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def load(path: Path) -> tuple[Row, list[Row]]:
    """Read a file of results; a missing file has no rows.

    Args:
      path: a JSON object with a "config" and a list "rows" of objects with a "config" each.

    Returns:
      The file's config and its rows, in the file's order.

    Raises:
      ValueError: the file has another form; the message names the line or the row.
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


NAMED = {"method": str, "log10_rho": int | float, "seed": int}


def check_cells(path: Path) -> None:
    """Refuse a file with a row that does not say of which method, ρ and seed it is."""
    for number, row in enumerate(read(path), start=1):
        wrong = [
            name
            for name, kind in NAMED.items()
            if not isinstance(row.get(name), kind) or isinstance(row.get(name), bool)
        ]
        if wrong:
            hint = "deleting the row makes it anew"
            raise ValueError(
                f"{path}, row {number}: no valid {' and no valid '.join(wrong)}; {hint}"
            )


def read(path: Path) -> list[Row]:
    """Read the rows of a file: see `load`."""
    return load(path)[1]


def of_configs(path: Path, configs: list[str]) -> list[Row]:
    """Read the rows that have these fingerprints, in the order of the fingerprints."""
    by_config = {row["config"]: row for row in read(path)}
    return [by_config[config] for config in configs]


def write(path: Path, rows: list[Row], config: Row | None = None) -> None:
    """Write rows and config to a file, replacing it atomically."""
    lines = ",\n".join(json.dumps(row, allow_nan=False) for row in rows)
    head = json.dumps(config or {}, allow_nan=False)
    with replacing(path) as temporary:
        text = f'{{"config": {head},\n"rows": [\n{lines}\n]}}\n'
        temporary.write_text(text, encoding="utf-8")


def add(path: Path, rows: list[Row], config: Row | None = None) -> None:
    """Append rows to a file under a lock, so that several processes may share it.

    Args:
      path: the file; its folder is created, and a lock file stays beside it.
      rows: rows to add; those whose config is already stored are skipped.
      config: settings of this run, which replace those in the file; None keeps those.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed
        before, stored = load(path)
        done = {row["config"] for row in stored}
        new = [row for row in rows if row["config"] not in done]
        if new or (config is not None and config != before):
            write(path, stored + new, before if config is None else config)
