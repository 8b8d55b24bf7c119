"""What goes to the terminal: tables and JSON on stdout, complaints on stderr.

Whatever comes from a task, a service or a user is escaped: it can neither drive the terminal nor
be taken for markup. NO_COLOR is honoured by rich.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from upshot.record import printable

__all__ = ["complain", "print_json", "print_lines", "print_table", "safe"]


def safe(value: object) -> str:
    """Return `value` as text that rich shows as it is; lines stay lines."""
    return escape("\n".join(printable(line) for line in str(value).split("\n")))


def complain(message: str) -> None:
    """Print one error on stderr."""
    Console(stderr=True, soft_wrap=True, highlight=False).print(
        f"[red]Error:[/red] {safe(message)}"
    )


def print_json(data: Any) -> None:
    """Print `data` as JSON on stdout; what JSON lacks is given by its `repr`."""
    json.dump(data, sys.stdout, indent=2, default=repr, ensure_ascii=False)
    sys.stdout.write("\n")


def print_lines(rows: Iterable[tuple[str, object]]) -> None:
    """Print labelled values, one below the other; those that are None or "" are left out."""
    console = Console(soft_wrap=True, highlight=False)
    for label, value in rows:
        if value is not None and value != "":
            console.print(f"[bold]{label:<10}[/bold] {safe(value)}")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table that fits the terminal's width."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(safe("" if cell is None else cell) for cell in row))
    Console(highlight=False).print(table)
