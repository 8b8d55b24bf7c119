"""A bar on the terminal for who waits for many results."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

__all__ = ["shown"]

T = TypeVar("T")


def shown(completed: Iterable[T], total: int) -> Iterator[T]:
    """Yield what completes, and show how much of the total has, where stderr is a terminal.

    Elsewhere nothing is written. The bar stays when all is done, or where it was left. Whether it
    has colours is for `NO_COLOR` and the terminal to say.
    """
    if not sys.stderr.isatty():
        yield from completed
        return
    from rich.console import Console  # most programs never show one
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("results", total=total)
        for each in completed:
            progress.advance(task)
            yield each
