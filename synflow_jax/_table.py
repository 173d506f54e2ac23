"""Values that print as a rich table: in a terminal, as text, and in a notebook.

rich is imported only when a table is made.
"""

import io
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from rich.table import Table


class Shown:
    """Base class of values that `print` and notebooks show as the table of `__rich__`."""

    width: ClassVar[int] = 100  # characters

    def __rich__(self) -> "Table":
        """Build the rich table."""
        raise NotImplementedError

    def __str__(self) -> str:
        """Render the table as text."""
        console = self._console()
        with console.capture() as capture:
            console.print(self)
        return capture.get().rstrip("\n")

    def _repr_html_(self) -> str:
        console = self._console(record=True, force_jupyter=False)
        console.print(self)
        frame = '<pre style="line-height:normal;font-family:monospace">{code}</pre>'
        return console.export_html(inline_styles=True, code_format=frame)

    def _console(self, **options: Any) -> Any:
        from rich.console import Console

        options = options or {"color_system": None}
        return Console(file=io.StringIO(), width=self.width, **options)


def new_table(caption: str | None = None, **options: Any) -> "Table":
    """Make an empty rich table."""
    from rich.table import Table

    return Table(caption=caption, **options)
