"""Merge files of results, such as those of several machines that shared one figure.

    python -m experiments.merge INTO.json FROM.json [FROM.json ...]

Adds the rows of every FROM to INTO, which is created if needed. A row whose settings are already in
INTO is skipped. Nothing is written if a FROM is missing or has no results.
"""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from experiments.records import rows as store
from experiments.records.console import ready, run_command
from experiments.records.rows import Row


@dataclasses.dataclass(frozen=True)
class Config:
    """Merge files of results."""

    into: Annotated[Path, tyro.conf.Positional]
    """The file that the rows are added to."""
    sources: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """The files that the rows come from; these do not change."""


def read(config: Config) -> list[tuple[Row, list[Row]]]:
    """Read every source.

    Args:
      config: the files.

    Returns:
      Config and rows of each source, in order.

    Raises:
      ValueError: no source is given, a file holds no results, or a source is the target.
      FileNotFoundError: a source is missing.
    """
    if not config.sources:
        raise ValueError("sources must be one or more files, got none")
    store.load(config.into)
    for path in config.sources:
        if not path.exists():
            raise FileNotFoundError(f"sources must be files of results, got {path}: no such file")
        if config.into.exists() and path.samefile(config.into):
            raise ValueError(f"sources must be other files than into, got {path} for both")
    return [store.load(path) for path in config.sources]


def merge(config: Config) -> int:
    """Add the rows of all sources to one file.

    Args:
      config: the files.

    Returns:
      The number of new rows.
    """
    found = read(config)
    before = len(store.read(config.into))
    asked = None if config.into.exists() else found[0][0]
    for _, rows in found:
        store.add(config.into, rows, asked)
        asked = None
    return len(store.read(config.into)) - before


def main(config: Config) -> None:
    """Merge, and print how many rows are new."""
    new = ready(merge, config)
    print(f"{config.into}: {new} new rows, {len(store.read(config.into))} in all")


if __name__ == "__main__":
    run_command(main, Config, "merge", __doc__)
