"""Console output of the commands, and their exit on bad settings."""

import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

import tyro
from rich.console import Console

INTERRUPTED = 130  # the shell's status of a command that Ctrl-C has ended


def run_command(main: Callable[[Any], Any], config: type, name: str, text: str | None) -> None:
    """Read the settings from the command line and call main; Ctrl-C ends it in one line.

    Args:
      main: the command.
      config: the dataclass of its settings.
      name: of the module in `experiments`.
      text: what help says.
    """
    asked = tyro.cli(config, prog=f"python -m experiments.{name}", description=text)
    try:
        main(asked)
    except KeyboardInterrupt:
        print(
            "\nstopped: what is finished is stored, and the same command goes on from there",
            file=sys.stderr,
        )
        sys.stderr.flush()
        os._exit(INTERRUPTED)  # a program that still runs in JAX would crash the usual exit


def ready(prepare: Callable[[Any], Any], config: Any) -> Any:
    """Call prepare(config); print a ValueError or OSError and exit with status 2."""
    try:
        return prepare(config)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error


def terminal() -> Console:
    """Open a console as wide as the terminal, or of 100 columns where there is none."""
    return Console(width=None if sys.stdout.isatty() else 100)


def tell(claims: Iterable[tuple[str, bool]], console: Console) -> None:
    """Print each claim on a line of its own, after "yes" or "NO"."""
    for text, holds in claims:
        console.print(f"{'yes' if holds else 'NO '}  {text}", highlight=False, soft_wrap=True)
