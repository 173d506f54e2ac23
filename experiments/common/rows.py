"""Results as JSON lines: one row a line, the file always whole.

A row carries the fingerprint of the settings that made it, so that a run finds what it still has
to do, and rows of other settings in the same file are left alone.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

Row = dict[str, Any]


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
    lines = path.read_text().splitlines()
    return [_parse(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1)]


def _parse(line: str, place: str) -> Row:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{place}: not JSON ({error})") from error
    if not isinstance(row, dict) or "config" not in row:
        raise ValueError(f'{place}: not an object with a "config"')
    return row


def write(path: Path, rows: list[Row]) -> None:
    """Replace a file by one with these rows, in one step: it is never seen half written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with temporary.open("w") as file:
        file.writelines(json.dumps(row, allow_nan=False) + "\n" for row in rows)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
