"""What a run says about each backend: the standing of every clause, and one verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from enum import StrEnum

import pytest

from upshot_conformance.clauses import CLAUSES
from upshot_conformance.findings import PROVEN, Finding, Standing, clauses_of, worst
from upshot_conformance.options import Options

__all__ = ["Tally", "Verdict"]


class Verdict(StrEnum):
    """The last word on a backend."""

    CONFORMANT = "conformant"
    """Every clause holds, is refused as declared, or does not apply."""
    PARTIAL = "partial"
    """Nothing unexpected is broken, and something is waived, unproven or was left out."""
    NON_CONFORMANT = "non-conformant"
    """Something is broken that no waiver names, or a waiver does not say what is so."""
    NOT_RUN = "not run"
    """Not one clause was proven."""


class Tally:
    """What the reports of one backend add up to.

    Args:
        label: how reports call the backend.
        options: what the run was asked for.
    """

    def __init__(self, label: str, options: Options) -> None:
        self.label = label
        self.options = options
        self._findings: dict[str, Finding] = {}

    def add(self, report: pytest.TestReport) -> None:
        """Take the report of one phase of one test."""
        new = Finding(report.nodeid.rpartition("/")[2], clauses_of(report))
        self._findings.setdefault(report.nodeid, new).add(report)

    @property
    def findings(self) -> list[Finding]:
        """What every test found, in the order in which they were first heard of."""
        return list(self._findings.values())

    @property
    def undeclared(self) -> set[str]:
        """Clauses that hold although their capability is not declared."""
        return {each for found in self.findings if found.undeclared for each in found.clauses}

    def standings(self) -> Mapping[str, Standing]:
        """Return how every clause of the contract stands."""
        seen: dict[str, set[Standing]] = {}
        for finding in self.findings:
            for clause_id in finding.clauses:
                if finding.standing is not None:
                    seen.setdefault(clause_id, set()).add(finding.standing)
        return {clause_id: worst(seen.get(clause_id, ())) for clause_id in CLAUSES}

    def reasons(self, clause_id: str) -> list[str]:
        """Return why tests of a clause were not simply run, each reason once."""
        told = [each.reason for each in self.findings if clause_id in each.clauses and each.reason]
        return sorted(set(told))

    def count(self) -> Counter[Standing]:
        """Return how many clauses stand how."""
        return Counter(self.standings().values())

    def verdict(self) -> tuple[Verdict, str]:
        """Return the run's last word on the backend, and why."""
        count = self.count()
        strays = len(self._complaints())
        if count[Standing.FAILED]:
            return Verdict.NON_CONFORMANT, f"{_clauses(count[Standing.FAILED])} broken"
        if strays:
            return Verdict.NON_CONFORMANT, f"{strays} of the waivers do not say what is so"
        if self.options.strict and self.undeclared:
            return Verdict.NON_CONFORMANT, f"{_clauses(len(self.undeclared))} under-claimed"
        if not any(finding.standing in PROVEN for finding in self.findings):
            return Verdict.NOT_RUN, "no clause was proven"
        return self._incomplete(count) or (Verdict.CONFORMANT, self._praise(count))

    def _praise(self, count: Counter[Standing]) -> str:
        applying = len(CLAUSES) - count[Standing.ABSENT]
        kept = (
            f"all {applying}" if applying == len(CLAUSES) else f"the {applying} of {len(CLAUSES)}"
        )
        apply = "" if applying == len(CLAUSES) else " that apply"
        return f"with {kept} clauses{apply}" + ", certified" * self.options.certify

    def _incomplete(self, count: Counter[Standing]) -> tuple[Verdict, str] | None:
        unproven = count[Standing.UNAVAILABLE] + count[Standing.NOT_RUN]
        if count[Standing.WAIVED]:
            return Verdict.PARTIAL, f"{_clauses(count[Standing.WAIVED])} broken and waived"
        if unproven:
            return Verdict.PARTIAL, f"{unproven} of {len(CLAUSES)} clauses were not proven"
        if self.options.filters:
            return Verdict.PARTIAL, f"tests were left out by {' '.join(self.options.filters)}"
        return None

    @property
    def is_red(self) -> bool:
        """True if the run must end with an exit code that is not 0."""
        verdict, _ = self.verdict()
        if verdict is Verdict.PARTIAL:
            return self.options.certify
        return verdict is not Verdict.CONFORMANT

    def lines(self) -> Iterator[str]:
        """Yield the table for the terminal."""
        count = self.count()
        yield "clauses: " + ", ".join(f"{count[each]} {each}" for each in Standing if count[each])
        standings = self.standings()
        for shown in (each for each in Standing if each not in PROVEN):
            asked = [each for each in standings if each in self.options.clauses]
            ids = [clause_id for clause_id in asked if standings[clause_id] is shown]
            told = {reason for each in ids for reason in self.reasons(each)}
            why = f" ({'; '.join(sorted(told))})" if told and shown is not Standing.FAILED else ""
            if ids:
                yield f"{shown}: {' '.join(ids)}{why}"
        if self.undeclared:
            yield f"works although undeclared: {' '.join(sorted(self.undeclared))}"
        for clause_id, complaint in self._complaints():
            yield f"waiver: {clause_id} {complaint}"
        yield f"verdict: {': '.join(self.verdict())}"

    def _complaints(self) -> list[tuple[str, str]]:
        return list(self.options.waivers.complaints(self.standings(), self.options.clauses))


def _clauses(count: int) -> str:
    return f"{count} clause{' is' if count == 1 else 's are'}"
