"""What prints as a table: in a terminal, as text, and in a notebook."""

import io
from typing import ClassVar

from rich.console import Console
from rich.table import Table


class Shown:
    """A value with a rich table, which `print` and a notebook show."""

    width: ClassVar[int] = 100

    def __rich__(self) -> Table:
        """Lay the rows out for rich."""
        raise NotImplementedError

    def __str__(self) -> str:
        """Render the table as text."""
        console = Console(file=io.StringIO(), width=self.width, color_system=None)
        with console.capture() as capture:
            console.print(self)
        return capture.get().rstrip("\n")

    def _repr_html_(self) -> str:
        console = Console(file=io.StringIO(), width=self.width, record=True, force_jupyter=False)
        console.print(self)
        frame = '<pre style="line-height:normal;font-family:monospace">{code}</pre>'
        return console.export_html(inline_styles=True, code_format=frame)
