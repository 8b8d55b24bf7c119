"""Text, fields, tables and bars on a terminal: all that is drawn by rich.

Every text that is given here is printable already.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple

from rich.console import Console, Group
from rich.live import Live
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

__all__ = [
    "Bar",
    "Cell",
    "bars",
    "counting",
    "is_live",
    "width",
    "write",
    "write_table",
    "write_traceback",
]

_PIPE_WIDTH: Final = 200  # columns of a table that no terminal shows
_USUAL_WIDTH: Final = 80  # columns of a terminal that does not say how many it has
_BOUNDLESS: Final = 1_000_000  # columns: wider than any table
_SHORT_BAR, _LONG_BAR = 10, 24  # columns
_NARROW: Final = 80  # columns; below, a bar is short

Cell = tuple[str, str]
"""A text, and the name of its style ("" for none)."""


class Bar(NamedTuple):
    """One line of `bars`.

    Attributes:
        label: what it is about; it is cut where there is no room.
        state: in a word, with its style.
        done: from 0 to 1; None draws no bar.
        text: what else is to be said.
    """

    label: str
    state: Cell
    done: float | None
    text: str


def _console(*, stderr: bool = False) -> Console:
    # Rich itself honours NO_COLOR, and writes no colours into a pipe.
    console = Console(
        stderr=stderr,
        markup=False,
        highlight=False,
        emoji=False,
        no_color=True if os.environ.get("UPSHOT_NO_COLOR") else None,
    )
    if not console.is_terminal and not _columns():
        console.width = _PIPE_WIDTH
    elif console.width < 1:  # rich would print nothing at all
        console.width = _USUAL_WIDTH
    return console


def _columns() -> int:
    """Return how many columns the environment asks for; 0 for what is no number, as for rich."""
    said = os.environ.get("COLUMNS", "")
    return int(said) if said.isdigit() else 0


def width() -> int:
    """Return how many columns a line of stdout has."""
    return _console().width


def is_live(*, stderr: bool = False) -> bool:
    """Tell whether what was written can be written over: not in a pipe, nor on a dumb terminal."""
    console = _console(stderr=stderr)
    return console.is_terminal and not console.is_dumb_terminal


def write(parts: Sequence[tuple[str, str]], *, stderr: bool = False) -> None:
    """Write pieces of printable text, each with the name of its style ("" for none), and an end."""
    _console(stderr=stderr).print(Text.assemble(*parts), soft_wrap=True)


def write_traceback(text: str, *, indent: str = "") -> None:
    """Write a Python traceback with the colours of its parts."""
    console, shown = _console(), Text(text)
    if console.is_terminal and console.color_system is not None:
        from rich.syntax import Syntax  # with all of Pygments, for who looks at a failure

        shown = Syntax("", "pytb", theme="ansi_dark").highlight(text)
        shown.rstrip()
    for line in shown.split("\n"):
        console.print(Text(indent) + line, soft_wrap=True)


def write_table(
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str | Cell]],
    *,
    stacks: bool = False,
) -> None:
    """Write a table of printable texts; no cell is cut, however long.

    Args:
        title: above it; "" for none.
        header: of each column.
        rows: texts, or cells with a style.
        stacks: let the columns of a row stand one below the other where the table is too wide:
            an id that was folded could not be copied.
    """
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in header:
        table.add_column(Text(heading), overflow="fold")
    for row in rows:
        table.add_row(*map(_text, row))
    console = _console()
    boundless = console.options.update(max_width=_BOUNDLESS)
    if stacks and Measurement.get(console, boundless, table).maximum > console.width:
        _write_stacked(console, title, header, rows)
    else:
        console.print(table)


def _text(cell: str | Cell) -> Text:
    return Text(cell) if isinstance(cell, str) else Text(*cell)


def _write_stacked(
    console: Console, title: str, header: Sequence[str], rows: Sequence[Sequence[str | Cell]]
) -> None:
    console.print(Text(title, style="italic"))
    column = max(map(len, header)) + 2
    for row in rows:
        for heading, cell in zip(header, row, strict=True):
            console.print(Text(heading.ljust(column), style="bold") + _text(cell), soft_wrap=True)
        console.print()


@contextmanager
def counting(what: str, *, quiet: bool = False) -> Generator[Callable[[int, str], None]]:
    """Show on stderr how far it is, inside the block, if that is a terminal and not `quiet`.

    How much there is in all is not known, so the bar only shows that it goes on.

    Yields:
        takes the number of those that are done, and what is being done or was found so far.
    """
    console = _console(stderr=True)
    columns = (
        TextColumn("{task.fields[what]}", markup=False),
        BarColumn(_SHORT_BAR),
        TextColumn("{task.completed:.0f}", markup=False),
        TimeElapsedColumn(),
    )
    is_shown = is_live(stderr=True) and not quiet
    progress = Progress(  # which would take for its own what is written to stdout meanwhile
        *columns, console=console, transient=True, disable=not is_shown, redirect_stdout=False
    )
    with _ending_tidily(), progress as bar:
        task = bar.add_task("", total=None, what=what)

        def told(done: int, text: str) -> None:
            bar.update(task, completed=done, what=text)

        yield told


@contextmanager
def bars() -> Generator[Callable[[Sequence[Bar], str], None]]:
    """Draw lines on stdout that change inside the block, and stay after it.

    Yields:
        takes the lines, and a text that stands below them.
    """
    console = _console()
    with _ending_tidily(), Live(console=console, auto_refresh=False) as live:

        def draw(lines: Sequence[Bar], below: str) -> None:
            live.update(_drawn(lines, below, console.width), refresh=True)

        yield draw


@contextmanager
def _ending_tidily() -> Generator[None]:
    """Show the cursor again also where `timeout` or `kill` ends what is drawn."""

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)  # as shells have it

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _drawn(lines: Sequence[Bar], below: str, columns: int) -> Group:
    long = _LONG_BAR if columns >= _NARROW else _SHORT_BAR
    states = [Text(*line.state) for line in lines]
    texts = [_cut(line.text, columns // 3) for line in lines]
    others = (long, *(max((text.cell_len for text in each), default=0) for each in (states, texts)))
    grid = Table.grid(padding=(0, 1, 0, 0))
    for line, state, text in zip(lines, states, texts, strict=True):
        bar = "" if line.done is None else ProgressBar(total=1.0, completed=line.done, width=long)
        label = _cut(line.label, max(_SHORT_BAR, columns - sum(others) - len(others) - 1))
        grid.add_row(label, state, bar, text)
    return Group(grid, Text(below, style="dim"))


def _cut(text: str, columns: int) -> Text:
    cut = Text(text, no_wrap=True)
    cut.truncate(columns, overflow="ellipsis")
    return cut
