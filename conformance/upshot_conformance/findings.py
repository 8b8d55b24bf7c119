"""What one test found out about one backend, read from pytest's reports of it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import pytest

__all__ = ["KIND", "PROVEN", "Finding", "Kind", "Standing", "clauses_of", "worst"]

KIND: Final = "kind"
"""The user property of a report that says why it is neither a plain pass nor a plain failure."""


class Kind(StrEnum):
    """Values of the user property `KIND`; a colon and a detail may follow."""

    ABSENT = "absent"
    """Skipped: a capability is not declared, or there is nothing of the kind."""
    DECLARED = "declared"
    """Skipped: it tests a refusal, and the capability is declared."""
    REFUSAL = "refusal"
    """It tests that what is not declared is refused."""
    UNAVAILABLE = "unavailable"
    """Skipped: the harness cannot tell."""
    PROBE = "probe"
    """It tests what is not declared, to see whether it works nevertheless."""
    NOT_ASKED = "not asked"
    """Skipped: it disturbs the service, and `--disruptive` was not given."""
    WAIVED = "waived"
    """It failed as a waiver says that it does."""
    PROVISIONAL = "provisional"
    """It failed, and its clause binds this backend not yet."""


class Standing(StrEnum):
    """How a test has ended, and how a clause stands after all of its tests, worst first."""

    FAILED = "failed"
    WAIVED = "waived"
    PROVISIONAL = "fails, provisionally"
    UNAVAILABLE = "unavailable"
    PASSED = "passed"
    REFUSED = "refused as declared"
    ABSENT = "not applicable"
    NOT_RUN = "not run"


PROVEN: Final = frozenset({Standing.PASSED, Standing.REFUSED})
"""The standings that show that a clause is kept."""


_OF_SKIPPED: Final = {
    Kind.ABSENT: Standing.ABSENT,
    Kind.PROBE: Standing.ABSENT,
    Kind.NOT_ASKED: Standing.NOT_RUN,
    Kind.WAIVED: Standing.WAIVED,
    Kind.PROVISIONAL: Standing.PROVISIONAL,
}


@dataclass(slots=True)
class Finding:
    """What one test found out about one backend.

    Attributes:
        test: its name, such as `"test_states.py::test_the_first_terminal_record_wins[…]"`.
        clauses: the ids of the clauses that it checks; of a failed one, those that it found broken.
        standing: None while it says nothing: a test of a refusal where nothing is refused.
        reason: why it was not simply run; "" if it was.
        message: how it failed; "" if it did not.
        seconds: how long all phases of it took.
        undeclared: it passed although a capability that it needs is not declared.
    """

    test: str
    clauses: tuple[str, ...]
    standing: Standing | None = None
    reason: str = ""
    message: str = ""
    seconds: float = 0.0
    undeclared: bool = False

    def add(self, report: pytest.TestReport) -> None:
        """Take the report of one phase: set-up, call or tear-down."""
        said = [str(value) for name, value in report.user_properties if name == KIND]
        kind, _, detail = (said[-1] if said else "").partition(":")
        self.seconds += report.duration
        if report.failed:
            again = self.standing is Standing.FAILED  # in the tear-down, after the test itself
            before, told = (self.clauses, [self.message]) if again else ((), [])
            self.clauses = tuple(dict.fromkeys((*before, *clauses_of(report))))
            self.message = "\n\n".join([*told, report.longreprtext])
        found = _standing(report, kind)
        if found is not None:
            self.standing = worst([found] if self.standing is None else [found, self.standing])
        if report.skipped and kind != Kind.DECLARED:
            self.reason = detail.strip() or self.reason or _skip_reason(report)
        if kind == Kind.PROBE and report.when == "call" and report.passed:
            self.undeclared = True


def worst(standings: Collection[Standing]) -> Standing:
    """Return how a clause stands whose tests stand like this; NOT_RUN for none."""
    return next((each for each in Standing if each in standings), Standing.NOT_RUN)


def clauses_of(report: pytest.TestReport) -> tuple[str, ...]:
    """Return the ids of the clauses that a report is about."""
    return tuple(str(value) for name, value in report.user_properties if name == "clause")


def _standing(report: pytest.TestReport, kind: str) -> Standing | None:
    """Return what one phase says about its test, None if nothing."""
    if report.failed:
        return Standing.FAILED
    if report.skipped:
        if kind == Kind.DECLARED:
            return None
        return _OF_SKIPPED.get(Kind(kind), Standing.UNAVAILABLE) if kind else Standing.UNAVAILABLE
    if report.when != "call":
        return None
    if kind == Kind.PROBE:
        return Standing.ABSENT
    return Standing.REFUSED if kind == Kind.REFUSAL else Standing.PASSED


def _skip_reason(report: pytest.TestReport) -> str:
    where = report.longrepr
    text = str(where[2]) if isinstance(where, tuple) else str(where)
    return text.removeprefix("Skipped: ")
