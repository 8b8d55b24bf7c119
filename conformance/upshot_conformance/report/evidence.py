"""What a run has shown, as plain data without secrets: what every form of the report is made of.

`gather` makes it from a run, `upshot_conformance.report.lines.read` from a file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Final

from upshot_conformance.clauses import CLAUSES
from upshot_conformance.findings import PROVEN, Finding, Standing
from upshot_conformance.options import Options
from upshot_conformance.report.facts import BackendFacts, RunFacts
from upshot_conformance.report.text import Scrubber, plain
from upshot_conformance.verdict import Tally, Verdict

__all__ = [
    "Cell",
    "Evidence",
    "Judged",
    "Result",
    "Verdict",
    "gather",
    "judge",
]

_OPEN: Final = frozenset({Standing.WAIVED, Standing.UNAVAILABLE, Standing.NOT_RUN})
"""The standings that leave a core or extended clause unproven."""

_PROGRAMS: Final = 2
"""How many words of a command may name a program: `python pytest …`."""

_OWN_PROGRAM: Final = "upshot"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one test found out about one clause on one backend.

    Attributes:
        backend: the label.
        clause: the id.
        level: of the clause for this backend: `core`, `extended` or `provisional`.
        gate: the capability that switches the clause on; "" if it binds every backend.
        test: such as `"test_states.py::test_a_late_start_changes_nothing[redis]"`.
        standing: None if it says nothing: it tests a refusal, and nothing is refused.
        reason: why it was not simply run; "" if it was.
        seconds: how long all phases of it took.
        message: how it failed; "" if it did not.
        undeclared: it passed although a capability that it needs is not declared.
    """

    backend: str
    clause: str
    level: str
    gate: str
    test: str
    standing: Standing | None
    reason: str
    seconds: float
    message: str
    undeclared: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """How one clause stands on one backend.

    Attributes:
        level: of the clause for this backend.
        gate: the capability that switches it on; "" if it binds every backend.
        standing: the worst of its tests'.
        reasons: why tests of it were not simply run, each once.
        tests: how many tests said something about it.
        undeclared: it holds although its capability is not declared.
    """

    level: str
    gate: str
    standing: Standing
    reasons: tuple[str, ...]
    tests: int
    undeclared: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One backend and what was found out about it.

    Attributes:
        facts: what is known about it otherwise.
        verdict: the last word.
        sentence: the last word with its grounds.
        cells: how each clause of the contract stands, by its id, in the contract's order.
    """

    facts: BackendFacts
    verdict: Verdict
    sentence: str
    cells: Mapping[str, Cell]

    def counts(self) -> Mapping[str, Mapping[str, int]]:
        """Return how many clauses of each level stand how."""
        found: dict[str, Counter[str]] = {}
        for cell in self.cells.values():
            found.setdefault(cell.level, Counter())[cell.standing] += 1
        return {level: dict(count) for level, count in found.items()}

    def kept(self, level: str) -> tuple[int, int]:
        """Return how many clauses of a level are proven, and how many apply."""
        standings = [cell.standing for cell in self.cells.values() if cell.level == level]
        applying = [standing for standing in standings if standing is not Standing.ABSENT]
        return sum(standing in PROVEN for standing in applying), len(applying)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything that is reported.

    Attributes:
        run: how the tests were run.
        judged: every backend, in the order in which they were asked for.
        results: what every test found out about each of its clauses; () if only the summary
            was kept.
    """

    run: RunFacts
    judged: tuple[Judged, ...]
    results: tuple[Result, ...]


def gather(run: RunFacts, backends: Sequence[BackendFacts], tallies: Iterable[Tally]) -> Evidence:
    """Return what a run has shown, every password hidden.

    Args:
        run: how it was run.
        backends: every backend that was to be tested, labels all different.
        tallies: what was found out, by label; a backend without one was not run.
    """
    scrub = Scrubber(backend.url for backend in backends)
    found = {tally.label: tally for tally in tallies}
    judged: list[Judged] = []
    results: list[Result] = []
    for backend in backends:
        tally = found.get(backend.label) or Tally(backend.label, Options())
        lines = [line for each in tally.findings for line in _results(backend, each, scrub)]
        judged.append(_judged(run, _scrubbed_backend(backend, scrub), tally, lines))
        results += lines
    return Evidence(run=_scrubbed_run(run, scrub), judged=tuple(judged), results=tuple(results))


def judge(standings: Iterable[Standing], *, proven: bool, whole: bool) -> Verdict:
    """Return the verdict that follows from how the clauses stand.

    Args:
        standings: one for each clause of the contract.
        proven: a test of some clause passed.
        whole: every test that applies was run.
    """
    seen = set(standings)
    if Standing.FAILED in seen:
        return Verdict.NON_CONFORMANT
    if not proven:
        return Verdict.NOT_RUN
    return Verdict.CONFORMANT if whole and not seen & _OPEN else Verdict.PARTIAL


def _results(backend: BackendFacts, finding: Finding, scrub: Scrubber) -> Iterable[Result]:
    for clause_id in finding.clauses:
        clause = CLAUSES[clause_id]
        yield Result(
            backend=backend.label,
            clause=clause_id,
            level=clause.level_for(backend.contract or clause.since),
            gate=clause.gate,
            test=plain(finding.test),
            standing=finding.standing,
            reason=scrub(finding.reason),
            seconds=round(finding.seconds, 3),
            message=scrub(finding.message),
            undeclared=finding.undeclared,
        )


def _judged(
    run: RunFacts, backend: BackendFacts, tally: Tally, results: Sequence[Result]
) -> Judged:
    by_clause: dict[str, list[Result]] = {}
    for result in results:
        by_clause.setdefault(result.clause, []).append(result)
    standings, undeclared = tally.standings(), tally.undeclared
    cells = {
        clause_id: Cell(
            level=clause.level_for(backend.contract or clause.since),
            gate=clause.gate,
            standing=standings[clause_id],
            reasons=_reasons(by_clause.get(clause_id, ())),
            tests=sum(each.standing is not None for each in by_clause.get(clause_id, ())),
            undeclared=clause_id in undeclared,
        )
        for clause_id, clause in CLAUSES.items()
    }
    verdict, why = tally.verdict()
    if verdict is Verdict.CONFORMANT and not run.whole:
        verdict, why = Verdict.PARTIAL, _why_partial(run)
    sentence = f"{verdict}: {why}"
    return Judged(facts=backend, verdict=verdict, sentence=sentence, cells=cells)


def _reasons(results: Iterable[Result]) -> tuple[str, ...]:
    return tuple(sorted({result.reason for result in results if result.reason}))


def _why_partial(run: RunFacts) -> str:
    if not run.complete:
        return "the run was stopped before its last test"
    return f"not every test was run ({' '.join(run.filters)})" if run.filters else "see the clauses"


def _scrubbed_backend(backend: BackendFacts, scrub: Scrubber) -> BackendFacts:
    return replace(
        backend,
        url=scrub(backend.url),
        server=scrub(backend.server),
        distribution=plain(backend.distribution),
        drivers={plain(name): scrub(version) for name, version in backend.drivers.items()},
    )


def _as_typed(command: Sequence[str]) -> Iterable[str]:
    """Yield the words of a command without the folders of its programs, which are elsewhere here.

    The second word may be a program too: that of an interpreter, which then goes without saying.
    """
    if len(command) > 1 and PurePath(command[1]).name == _OWN_PROGRAM:
        command = command[1:]
    for position, word in enumerate(command):
        path = PurePath(word)
        yield path.name if position < _PROGRAMS and path.is_absolute() else word


def _scrubbed_run(run: RunFacts, scrub: Scrubber) -> RunFacts:
    waivers = run.waivers
    if waivers is not None:
        used = {clause_id: scrub(reason) for clause_id, reason in waivers.used.items()}
        waivers = replace(waivers, file=scrub(waivers.file), used=used)
    return replace(
        run,
        command=tuple(map(scrub, _as_typed(run.command))),
        filters=tuple(map(scrub, run.filters)),
        waivers=waivers,
        untested={plain(name): scrub(reason) for name, reason in run.untested.items()},
    )
