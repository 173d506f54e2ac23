"""Console output of the commands, and their exit on bad settings."""

import sys
from collections.abc import Callable, Iterable
from typing import Any

from rich.console import Console


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
