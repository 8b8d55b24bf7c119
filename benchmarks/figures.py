"""Figures of several contenders, measured in turn, and the tables that show them."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Final, Literal

from rich.table import Table

__all__ = ["Figure", "Ratio", "grid", "markdown", "number", "table"]

Ratio = tuple[float, float, float]
"""A median, with the lower and the upper quartile."""

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

    def spread(self, contender: str) -> Ratio:
        """Return the median of a contender's samples, and their quartiles."""
        return _quartiles(self.samples[contender])

    def ratio(self, contender: str, base: str) -> Ratio | None:
        """Return how many times the base's a contender's figure is: median, and the quartiles.

        None if one of them did not take part, or the base's is zero.
        """
        if contender not in self.samples or base not in self.samples:
            return None
        pairs = zip(self.samples[contender], self.samples[base], strict=False)
        ratios = [own / other for own, other in pairs if other]
        return _quartiles(ratios) if ratios else None

    def line(self) -> str:
        """Return the figure as one line of JSON."""
        return json.dumps(asdict(self))


def _quartiles(samples: Sequence[float]) -> Ratio:
    ordered, last = sorted(samples), len(samples) - 1
    return statistics.median(ordered), ordered[last // 4], ordered[last - last // 4]


def _cells(figure: Figure, contender: str, most: int) -> str:
    """Return a contender's cell, with so many ratios at most."""
    if contender not in figure.samples:
        return ""
    cell, bases = number(figure.median(contender)), list(_BASE)
    if contender in bases:
        del bases[bases.index(contender) :]  # the driver is nobody's multiple
    found = [(base, figure.ratio(contender, base)) for base in bases]
    ratios = [(base, ratio) for base, ratio in found if ratio is not None]
    for base, (middle, low, high) in ratios[:most]:
        cell += f"; x{middle:.2f} {base} ({low:.2f} to {high:.2f})"
    return cell


def number(value: float) -> str:
    """Return a number with about three digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _contenders(figures: Iterable[Figure]) -> list[str]:
    return list(dict.fromkeys(name for each in figures for name in each.samples))


def table(title: str, figures: list[Figure]) -> Table:
    """Return a table for a terminal; one ratio in each cell, to `raw` where that takes part."""
    contenders = _contenders(figures)
    shown = Table(title=title, title_justify="left")
    for column in ("service", "figure", "unit", *contenders):
        shown.add_column(column, justify="left" if column in {"service", "figure"} else "right")
    for each in figures:
        arrow = "↓" if each.better == "lower" else "↑"
        cells = [_cells(each, contender, 1) for contender in contenders]
        shown.add_row(each.service, each.name, f"{each.unit} {arrow}", *cells)
    return shown


def markdown(figures: list[Figure]) -> str:
    """Return the same table as Markdown, with every ratio."""
    contenders = _contenders(figures)
    rows: list[Sequence[str]] = []
    for each in figures:
        arrow = "↓" if each.better == "lower" else "↑"
        cells = [_cells(each, contender, len(_BASE)) for contender in contenders]
        rows.append([each.service, each.name, f"{each.unit} {arrow}", *cells])
    return grid(("service", "figure", "unit"), contenders, rows)


def grid(words: Sequence[str], numbers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown, with columns of words, and of numbers to their right."""
    rule = ["---"] * len(words) + ["---:"] * len(numbers)
    lines: list[Sequence[str]] = [[*words, *numbers], rule, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
