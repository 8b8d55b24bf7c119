"""Text, fields and tables on a terminal: all that is drawn by rich."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["write", "write_table"]

_PIPE_WIDTH: Final = 200  # columns of a table that no terminal shows


def _console(*, stderr: bool = False) -> Console:
    # Rich itself honours NO_COLOR, and writes no colours into a pipe.
    console = Console(
        stderr=stderr,
        markup=False,
        highlight=False,
        emoji=False,
        no_color=True if os.environ.get("UPSHOT_NO_COLOR") else None,
    )
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _PIPE_WIDTH
    return console


def write(parts: Sequence[tuple[str, str]], *, stderr: bool = False) -> None:
    """Write pieces of printable text, each with the name of its style ("" for none), and an end."""
    _console(stderr=stderr).print(Text.assemble(*parts), soft_wrap=True)


def write_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a table of printable texts; no cell is cut, however long."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in header:
        table.add_column(Text(heading), overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    _console().print(table)
