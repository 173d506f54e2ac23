"""List the commands: `python -m benchmarks`.

Without this module Python would run the first `__main__.py` in the folders of `__path__` instead.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

from benchmarks import FOLDERS

GUARD = 'if __name__ == "__main__":'


def commands() -> Iterator[tuple[str, str]]:
    """Yield the name of each command and the first line of its docstring, folder by folder."""
    for folder in FOLDERS:
        for path in sorted(Path(__file__).with_name(folder).glob("*.py")):
            text = path.read_text()
            if GUARD in text:
                name = folder if path.stem == "__main__" else path.stem
                yield f"benchmarks.{name}", str(ast.get_docstring(ast.parse(text))).splitlines()[0]


def main() -> None:
    """Print a line a command."""
    for name, what in commands():
        print(f"python -m {name:<25} {what}")


if __name__ == "__main__":
    main()
