"""What a run says about each backend: the standing of every clause, and one verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Final

import pytest

from upshot_conformance.clauses import CLAUSES, Clause

__all__ = ["KIND", "Kind", "Standing", "Tally"]

KIND: Final = "kind"
"""The user property of a report that says why it is neither a plain pass nor a plain failure."""


class Kind(StrEnum):
    """Values of the user property `KIND`; a colon and a detail may follow."""

    ABSENT = "absent"
    """Skipped: a capability is not declared."""
    DECLARED = "declared"
    """Skipped: it tests a refusal, and the capability is declared."""
    REFUSAL = "refusal"
    """It tests that what is not declared is refused."""
    UNAVAILABLE = "unavailable"
    """Skipped: the harness cannot tell."""
    PROBE = "probe"
    """It tests what is not declared, to see whether it works nevertheless."""


class Standing(StrEnum):
    """How a clause stands after a run, worst first."""

    FAILED = "failed"
    UNAVAILABLE = "unavailable"
    PASSED = "passed"
    REFUSED = "refused as declared"
    ABSENT = "not applicable"
    NOT_RUN = "not run"
    UNTESTED = "not yet tested"


class Tally:
    """What the reports of one backend add up to.

    Args:
        label: how reports call the backend.
    """

    def __init__(self, label: str) -> None:
        self.label = label
        self.undeclared: set[str] = set()
        """Clauses that hold although their capability is not declared."""
        self._seen: dict[str, set[Standing]] = {}
        self._details: dict[str, set[str]] = {}

    def add(self, report: pytest.TestReport) -> None:
        """Take the report of one phase of one test."""
        properties = [(name, str(value)) for name, value in report.user_properties]
        clauses = [value for name, value in properties if name == "clause"]
        said = next((value for name, value in reversed(properties) if name == KIND), "")
        kind, _, detail = said.partition(":")
        standing = _standing(report, kind)
        for clause_id in clauses:
            if standing is not None:
                self._seen.setdefault(clause_id, set()).add(standing)
            if detail and report.skipped:
                self._details.setdefault(clause_id, set()).add(detail.strip())
            if kind == Kind.PROBE and report.when == "call" and report.passed:
                self.undeclared.add(clause_id)

    def standings(self) -> Mapping[str, Standing]:
        """Return how every clause of the contract stands."""
        return {clause.id: self._of(clause) for clause in CLAUSES.values()}

    def count(self) -> Counter[Standing]:
        """Return how many clauses stand how."""
        return Counter(self.standings().values())

    @property
    def proves_nothing(self) -> bool:
        """True if not one test of a clause passed: then the run must not look green."""
        proven = {Standing.PASSED, Standing.REFUSED}
        return not any(standings & proven for standings in self._seen.values())

    def verdict(self) -> str:
        """Return the run's last word on the backend, in a sentence."""
        count = self.count()
        unproven = count[Standing.UNAVAILABLE] + count[Standing.NOT_RUN]
        tested = sum(clause.tested for clause in CLAUSES.values())
        if count[Standing.FAILED]:
            return f"non-conformant: {count[Standing.FAILED]} clauses are broken"
        if self.proves_nothing:
            return "not run: no clause was proven"
        if unproven:
            return f"partial: {unproven} of {tested} clauses were not proven"
        return f"conformant with the {tested} clauses that this version of the suite tests"

    def lines(self) -> Iterator[str]:
        """Yield the table for the terminal."""
        count = self.count()
        yield "clauses: " + ", ".join(f"{count[each]} {each}" for each in Standing if count[each])
        standings = self.standings()
        for shown in (Standing.FAILED, Standing.UNAVAILABLE, Standing.ABSENT, Standing.NOT_RUN):
            ids = [clause_id for clause_id, standing in standings.items() if standing is shown]
            told = self._details if shown is not Standing.FAILED else {}
            reasons = {reason for each in ids for reason in told.get(each, ())}
            why = f" ({'; '.join(sorted(reasons))})" if reasons else ""
            if ids:
                yield f"{shown}: {' '.join(ids)}{why}"
        if self.undeclared:
            yield f"works although undeclared: {' '.join(sorted(self.undeclared))}"
        yield f"verdict: {self.verdict()}"

    def _of(self, clause: Clause) -> Standing:
        if not clause.tested:
            return Standing.UNTESTED
        seen = self._seen.get(clause.id, set())
        return next((standing for standing in Standing if standing in seen), Standing.NOT_RUN)


def _standing(report: pytest.TestReport, kind: str) -> Standing | None:
    """Return what one phase says about its clauses, None if nothing."""
    if report.failed:
        return Standing.FAILED
    if report.skipped:
        skipped = {Kind.DECLARED: None, Kind.ABSENT: Standing.ABSENT, Kind.PROBE: Standing.ABSENT}
        return skipped.get(Kind(kind), Standing.UNAVAILABLE) if kind else Standing.UNAVAILABLE
    if report.when != "call" or kind == Kind.PROBE:
        return Standing.ABSENT if kind == Kind.PROBE else None
    return Standing.REFUSED if kind == Kind.REFUSAL else Standing.PASSED
