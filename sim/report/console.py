"""Text made safe to show, and a table that is never cut: a narrower terminal wraps whole lines, not cells. And the same for a notebook."""

import io
from collections.abc import Iterable

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from kvplan.foreign.text import CELL, visible

_FILE_WIDTH, _NOTEBOOK_WIDTH, _UNBOUNDED = 110, 92, 10_000
_PRE = '<pre style="font-family:monospace;white-space:pre;overflow-x:auto;line-height:1.35">{code}</pre>'
"""Said here, for a notebook's own style may show it in letters of different widths, and break lines anywhere."""


def stdout(file_width: int) -> Console:
    """Of a terminal; and where it is none, plain text of that width. No name is taken for an emoji."""
    console = Console(highlight=False, emoji=False)
    return console if console.is_terminal else Console(highlight=False, emoji=False, width=file_width, no_color=True)


def html(*parts: RenderableType) -> str:
    """What would be printed, as HTML with the text escaped: for notebooks."""
    tables = [Console(width=_UNBOUNDED).measure(part).maximum for part in parts if isinstance(part, Table)]
    console = Console(file=io.StringIO(), record=True, highlight=False, width=max([_NOTEBOOK_WIDTH, *tables]), force_jupyter=False)
    console.print(*parts, sep="\n")
    return console.export_html(inline_styles=True, code_format=_PRE)


def html_table(title: str, table: Table, lines: Iterable[str]) -> str:
    """What `print_table` prints, as HTML."""
    return html(shown(title, "bold"), table, Text(""), *map(shown, lines))


def shown(text: str, style: str = "") -> Text:
    """A line of text, names of others in it."""
    return Text(visible(text), style)


def shown_cell(text: str) -> Text:
    """A cell of a table, likewise."""
    return Text(visible(text, CELL))


def print_table(title: str, table: Table, lines: Iterable[str]) -> None:
    """To stdout: title, table, and lines of text; plain text when that is no terminal."""
    console = stdout(_FILE_WIDTH)
    width = max(console.width, Console(width=_UNBOUNDED).measure(table).maximum)
    wide = Console(highlight=False, emoji=False, width=width, no_color=not console.is_terminal)
    wide.print(shown(title, "bold"), table, sep="\n")
    console.print("", *map(shown, lines), sep="\n")
