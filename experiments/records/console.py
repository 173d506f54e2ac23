"""What the commands share: how they refuse, and where they print."""

import sys
from collections.abc import Callable, Iterable
from typing import Any

from rich.console import Console


def ready(prepare: Callable[[Any], Any], config: Any) -> Any:
    """Prepare a comparison, or say why not and exit with 2."""
    try:
        return prepare(config)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error


def terminal() -> Console:
    """Open a console: as wide as the terminal is, or 100 where there is none."""
    return Console(width=None if sys.stdout.isatty() else 100)


def tell(claims: Iterable[tuple[str, bool]], console: Console) -> None:
    """Print what should be seen and whether it is, a line each."""
    for text, holds in claims:
        console.print(f"{'yes' if holds else 'NO '}  {text}", highlight=False, soft_wrap=True)
