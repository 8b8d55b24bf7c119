"""What an experiment counts, and the table that `make faults` prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import pytest
from _pytest.terminal import TerminalReporter

Row: TypeAlias = dict[str, Any]
"""A score on its way from the process that ran the experiment to the one that prints."""

COUNTS: Final = (
    "submitted",
    "executed",
    "recorded",
    "lost",
    "duplicated",
    "hung",
    "unexpected",
)
_SHOWN: Final = 5  # surprises that a failure spells out
_ROWS: Final[list[Row]] = []  # of this run


@dataclass
class Score:
    """The outcome of one experiment.

    Attributes:
        line: the acceptance line that it belongs to; see the README of this folder.
        name: the experiment, and what it was made with.
        seed: where its random numbers begin.
        submitted: tasks that were sent, or calls that were made.
        executed: how often the body of a task ran, or how many calls came back.
        recorded: tasks with one terminal record, or right answers.
        lost: tasks without a terminal record, or answers that never came to anybody.
        duplicated: runs of a task after its first; they are allowed, and counted.
        hung: calls that were not back in time.
        surprises: whatever else should not have been, each in a sentence.
        remarks: measured figures, each in a few words.
        seconds: how long it took.
    """

    line: int
    name: str
    seed: int
    submitted: int = 0
    executed: int = 0
    recorded: int = 0
    lost: int = 0
    duplicated: int = 0
    hung: int = 0
    surprises: list[str] = field(default_factory=list[str])
    remarks: list[str] = field(default_factory=list[str])
    seconds: float = 0.0
    is_judged: bool = False

    @property
    def unexpected(self) -> int:
        """How many surprises there were."""
        return len(self.surprises)

    def surprise(self, what: str) -> None:
        """Count something that should not have been."""
        self.surprises.append(what)

    def remark(self, what: str) -> None:
        """Show a measured figure in the table's last column."""
        self.remarks.append(what)

    def judge(self) -> None:
        """Fail the experiment unless nothing was lost, nothing hung, and nothing surprised."""
        self.is_judged = True
        assert self.submitted, "the experiment did nothing"
        bad = [name for name in ("lost", "hung", "unexpected") if getattr(self, name)]
        first = "".join(f"\n  {each}" for each in self.surprises[:_SHOWN])
        counts = ", ".join(f"{name} {getattr(self, name)}" for name in COUNTS)
        assert not bad, f"{self.name} (seed {self.seed}): {counts}{first}"

    def row(self) -> Row:
        """Return what the table shows."""
        return {
            "line": self.line,
            "experiment": self.name,
            **{name: getattr(self, name) for name in COUNTS},
            "seconds": round(self.seconds, 1),
            "seed": self.seed,
            "remarks": "; ".join(self.remarks),
        }


def table(rows: Sequence[Row]) -> str:
    """Return the scoreboard as Markdown, sorted by acceptance line."""
    if not rows:
        return ""
    ordered = sorted(rows, key=lambda row: (row["line"], row["experiment"]))
    head = list(ordered[0])
    lines = [[str(row[column]) for column in head] for row in ordered]
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]

    def written(cells: Sequence[str]) -> str:
        padded = (
            cell.ljust(width) if name in {"experiment", "remarks"} else cell.rjust(width)
            for name, cell, width in zip(head, cells, widths, strict=True)
        )
        return f"| {' | '.join(padded)} |"

    return "\n".join(
        [written(head), written(["-" * width for width in widths]), *map(written, lines)]
    )


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep the scores of an experiment."""
    if report.when == "teardown":
        # What travels here from another process has lost its types.
        found: list[tuple[str, Row]] = report.user_properties  # type: ignore[assignment]
        _ROWS.extend(row for name, row in found if name == "score")


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """Print the table of all scores, if there are any."""
    if _ROWS:
        terminalreporter.section("faults")
        terminalreporter.write_line(table(_ROWS))
