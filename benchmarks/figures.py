"""Figures of several contenders, measured in turn, and the tables that show them."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Final, Literal

from rich.table import Table

__all__ = ["Figure", "markdown", "table"]

_BASE: Final = ("raw", "celery")
"""Whose ratios are shown, if they take part."""


@dataclass
class Figure:
    """One quantity, with the samples of every contender.

    Samples with the same number were taken one after the other, so that a ratio compares what met
    the same machine: a busy moment slows down both, and so says little about either.

    Attributes:
        group: what it belongs to.
        service: where it was measured.
        name: what was measured.
        unit: of the samples.
        better: which direction is better.
        samples: per contender, in the order of the rounds.
    """

    group: str
    service: str
    name: str
    unit: str
    better: Literal["lower", "higher"] = "lower"
    samples: dict[str, list[float]] = field(default_factory=dict[str, list[float]])

    def add(self, contender: str, sample: float) -> None:
        """Take one sample in."""
        self.samples.setdefault(contender, []).append(sample)

    def median(self, contender: str) -> float:
        """Return the median of a contender's samples."""
        return statistics.median(self.samples[contender])

    def ratio(self, contender: str, base: str) -> tuple[float, float, float] | None:
        """Return how many times the base's a contender's figure is: median, and the quartiles.

        None if one of them did not take part, or the base's is zero.
        """
        if contender not in self.samples or base not in self.samples:
            return None
        pairs = zip(self.samples[contender], self.samples[base], strict=False)
        ratios = sorted(own / other for own, other in pairs if other)
        if not ratios:
            return None
        last = len(ratios) - 1
        return statistics.median(ratios), ratios[last // 4], ratios[last - last // 4]

    def line(self) -> str:
        """Return the figure as one line of JSON."""
        return json.dumps(asdict(self))


def _cells(figure: Figure, contender: str) -> str:
    if contender not in figure.samples:
        return ""
    shown = _number(figure.median(contender))
    for base in _BASE:
        ratio = figure.ratio(contender, base)
        if ratio is not None and contender != base:
            return f"{shown}  x{ratio[0]:.2f} ({ratio[1]:.2f} to {ratio[2]:.2f})"
    return shown


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _contenders(figures: Iterable[Figure]) -> list[str]:
    return list(dict.fromkeys(name for each in figures for name in each.samples))


def table(title: str, figures: list[Figure]) -> Table:
    """Return a table for a terminal; ratios are to `raw` where it takes part, else to `celery`."""
    contenders = _contenders(figures)
    shown = Table(title=title, title_justify="left")
    for column in ("service", "figure", "unit", *contenders):
        shown.add_column(column, justify="left" if column in {"service", "figure"} else "right")
    for each in figures:
        arrow = "↓" if each.better == "lower" else "↑"
        cells = [_cells(each, contender) for contender in contenders]
        shown.add_row(each.service, each.name, f"{each.unit} {arrow}", *cells)
    return shown


def markdown(figures: list[Figure]) -> str:
    """Return the same table as Markdown."""
    contenders = _contenders(figures)
    rows = [["service", "figure", "unit", *contenders]]
    rows.append(["---", "---", "---", *["---:"] * len(contenders)])
    for each in figures:
        arrow = "↓" if each.better == "lower" else "↑"
        cells = [_cells(each, contender) for contender in contenders]
        rows.append([each.service, each.name, f"{each.unit} {arrow}", *cells])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
