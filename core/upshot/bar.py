"""A bar on the terminal for who waits for many results."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TextIO, TypeVar

__all__ = ["shown"]

T = TypeVar("T")


def shown(completed: Iterable[T], total: int) -> Iterator[T]:
    """Yield what completes, and show how much of the total has, where stderr is a terminal.

    Elsewhere nothing is written. The bar stays when all is done, or where it was left. Whether it
    has colours is for `NO_COLOR` and the terminal to say.
    """
    if not _is_terminal(sys.stderr):
        yield from completed
        return
    from rich.console import Console  # most programs never show one
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # What is printed meanwhile goes above the bar, but not into it from a file or a pipe.
    above = _is_terminal(sys.stdout)
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=above) as progress:
        task = progress.add_task("results", total=total)
        for each in completed:
            progress.advance(task)
            yield each


def _is_terminal(stream: TextIO | None) -> bool:
    """Tell whether a standard stream is a terminal; None stands for one that was closed before."""
    return stream is not None and stream.isatty()
