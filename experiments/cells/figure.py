"""The runner of the figures without training: make missing rows, draw, check claims."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import jax
from rich.console import Console
from rich.progress import track

from experiments.records import rows as store
from experiments.records.console import ready, tell, terminal
from experiments.records.machine import provenance
from experiments.records.rows import Row
from synflow_jax import CollapseWarning, UncertifiedWarning


class Asked(Protocol):
    """Settings that every figure has."""

    @property
    def draw(self) -> bool:
        """Whether to draw the stored rows only, and make none."""
        ...

    @property
    def folder(self) -> Path:
        """Where the results go."""
        ...


class Figure(NamedTuple):
    """One figure: the functions that make its rows, draw them and check its claims."""

    name: str
    groups: Sequence[Sequence[Row]]  # settings of the rows; `make` gets one group at a time
    make: Callable[[list[Row]], Iterator[Row]]  # settings of a group -> results, in their order
    draw: Callable[[list[Row], Path], None]
    claims: Callable[[list[Row]], Iterator[tuple[str, bool]]]


def run(figure: Figure, config: Asked) -> None:
    """Make the missing rows unless `config.draw` is set, draw, and print which claims hold."""
    console = terminal()
    path = config.folder / f"{figure.name}.json"

    def rows_of(asked: Asked) -> list[Row]:
        return stored(figure, path) if asked.draw else complete(figure, asked, path, console)

    rows = ready(rows_of, config)
    picture = path.with_suffix(".png")
    figure.draw(rows, picture)
    tell(figure.claims(rows), console)
    count = f"{len(rows)} of {sum(map(len, figure.groups))} rows"
    console.print(f"{count} are in {path}, the figure in {picture}", soft_wrap=True)


def stored(figure: Figure, path: Path) -> list[Row]:
    """Read the rows of a figure that are in its file.

    Args:
      figure: the figure.
      path: the file of rows.

    Returns:
      The stored rows, in the order of the figure's groups.

    Raises:
      ValueError: there are none, or the file is malformed.
    """
    by_config = {row["config"]: row for row in store.read(path)}
    keys = [store.fingerprint(cell) for group in figure.groups for cell in group]
    rows = [by_config[key] for key in keys if key in by_config]
    if not rows:
        raise ValueError(f"{path} has no row of these settings; without --draw they are made")
    return rows


def complete(figure: Figure, config: Asked, path: Path, console: Console) -> list[Row]:
    """Make the rows of a figure that are not in its file, and store each when it is made.

    Args:
      figure: the figure.
      config: the settings.
      path: the file of rows.
      console: where progress is shown; one line a row if it is not a terminal.

    Returns:
      All rows of the figure, in the order of its groups.

    Raises:
      ValueError: the file is malformed, or the data do not fit.
      OSError: data are not prepared, or the file cannot be written.
    """
    store.add(path, [])  # fail before the work if the file cannot be written
    about = provenance(config, jax.default_backend())
    shown = not console.is_terminal
    for group in track(figure.groups, figure.name, console=console, disable=shown):
        done = {row["config"] for row in store.read(path)}
        missing = [cell for cell in group if store.fingerprint(cell) not in done]
        if not missing:
            continue
        for cell, result in zip(missing, _quietly(figure.make, missing), strict=True):
            store.add(path, [{"config": store.fingerprint(cell), **cell, **result}], about)
            if shown:
                console.print(_line(cell), highlight=False, soft_wrap=True)
    return stored(figure, path)


def _quietly(make: Callable[[list[Row]], Iterator[Row]], cells: list[Row]) -> Iterator[Row]:
    """Make rows without warnings of layer collapse, which the figures show."""
    with warnings.catch_warnings():
        for category in (CollapseWarning, UncertifiedWarning):
            warnings.simplefilter("ignore", category)
        yield from make(cells)


def _line(cell: Row) -> str:
    hidden = {"version", "recipe", "model", "shape", "seed"}
    return " ".join(f"{name}={value}" for name, value in cell.items() if name not in hidden)
