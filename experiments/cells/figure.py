"""What the figures without training share: make the rows that are missing, draw, check claims."""

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
    """What every figure is asked for."""

    @property
    def draw(self) -> bool:
        """Whether rows that are stored are drawn, and none is made."""
        ...

    @property
    def folder(self) -> Path:
        """Where the results go."""
        ...


class Figure(NamedTuple):
    """One figure: how its rows are made, how it is drawn from them, and what it shows."""

    name: str
    groups: Sequence[Sequence[Row]]  # the settings of the rows; a group is made together
    make: Callable[[list[Row]], Iterator[Row]]  # settings of a group -> results, in their order
    draw: Callable[[list[Row], Path], None]
    claims: Callable[[list[Row]], Iterator[tuple[str, bool]]]


def run(figure: Figure, config: Asked) -> None:
    """Make the rows that are missing, unless told not to, draw, and say which claims hold."""
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
      figure: what to read.
      path: the file of rows.

    Returns:
      Those that are there, in the order of the figure's groups.

    Raises:
      ValueError: there is none, or the file is malformed.
    """
    by_config = {row["config"]: row for row in store.read(path)}
    keys = [store.fingerprint(cell) for group in figure.groups for cell in group]
    rows = [by_config[key] for key in keys if key in by_config]
    if not rows:
        raise ValueError(f"{path} has no row of these settings; without --draw they are made")
    return rows


def complete(figure: Figure, config: Asked, path: Path, console: Console) -> list[Row]:
    """Make the rows of a figure that are not in its file, and store each as it is made.

    Args:
      figure: what to make.
      config: what was asked for.
      path: the file of rows.
      console: where progress is shown; where it is no terminal, one line a row.

    Returns:
      All rows of the figure, in the order of its groups.

    Raises:
      ValueError: the file is malformed, or the data do not fit.
      OSError: data are not prepared, or the file cannot be written.
    """
    store.add(path, [])  # where it cannot be written, fail before the work
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
    """Let layers collapse without a word: it is what the figures show."""
    with warnings.catch_warnings():
        for category in (CollapseWarning, UncertifiedWarning):
            warnings.simplefilter("ignore", category)
        yield from make(cells)


def _line(cell: Row) -> str:
    hidden = {"version", "recipe", "model", "shape", "seed"}
    return " ".join(f"{name}={value}" for name, value in cell.items() if name not in hidden)
