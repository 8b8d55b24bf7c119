"""The evidence as JSON Lines: `results.jsonl`, and the summaries that are kept for good.

UTF-8, one JSON object a line, each with a `kind`. Schema 1:

`header`, the first line, exactly once:
    schema      the number 1; another one is another format
    run         the fields of `upshot_conformance.report.facts.RunFacts`
    backends    a list of the fields of `upshot_conformance.report.facts.BackendFacts`

`result`, a line for each clause that each test checks, on each backend; the fields of
`upshot_conformance.report.evidence.Result`:
    backend     the label
    clause      the id, such as "ST-2"
    level       "core", "extended" or "provisional": what the clause is for this backend
    gate        the capability that switches the clause on, "" for none
    test        the test's name, with the label in brackets
    standing    "passed", "failed", "waived", "fails, provisionally", "unavailable",
                "refused as declared", "not applicable", "not run"; null: it says nothing, as it
                tests a refusal and nothing is refused
    reason      why it was not simply run, or ""
    seconds     how long all phases of it took
    message     how it failed, or ""
    undeclared  true: it passed although a capability that it needs is not declared

`footer`, the last line, exactly once:
    results     how many lines of that kind there are; 0 in a summary
    summary     true if the lines of the tests were left out on purpose
    backends    by label: {"verdict": "conformant", "partial", "non-conformant" or "not run";
                "sentence"; "counts": {level: {standing: how many clauses}}; "clauses": {id: the
                fields of `upshot_conformance.report.evidence.Cell`}}
    complete    false if the run was stopped before its last test

A file that was cut off has no footer, and proves nothing. Passwords are `***` everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from upshot.errors import UpshotError
from upshot_conformance.findings import PROVEN, Standing, worst
from upshot_conformance.report.evidence import Cell, Evidence, Judged, Result, judge
from upshot_conformance.report.facts import BackendFacts, RunFacts
from upshot_conformance.report.plain_data import build
from upshot_conformance.verdict import Verdict

__all__ = ["SCHEMA", "EvidenceError", "dump", "read"]

SCHEMA: Final = 1
"""The version of the format; a file of another one is refused."""

_HIDING: Final = frozenset({Standing.WAIVED, Standing.PROVISIONAL, Standing.UNAVAILABLE})
"""Clauses that stand like this may have tests that passed, which their standing does not show."""


class EvidenceError(UpshotError):
    """A file is not what `dump` wrote, or does not show what it says it shows."""


@dataclass(frozen=True, slots=True)
class _Header:
    schema: int
    run: RunFacts
    backends: tuple[BackendFacts, ...]


@dataclass(frozen=True, slots=True)
class _Footing:
    verdict: Verdict
    sentence: str
    counts: Mapping[str, Mapping[str, int]]
    clauses: Mapping[str, Cell]


@dataclass(frozen=True, slots=True)
class _Footer:
    results: int
    summary: bool
    backends: Mapping[str, _Footing]
    complete: bool


def dump(evidence: Evidence, *, summary: bool = False) -> str:
    """Return the lines of a file.

    Args:
        evidence: what was found out.
        summary: leave the lines of the tests out; how each clause stands is in the footer.
    """
    judged = evidence.judged
    results = () if summary else evidence.results
    header = _Header(SCHEMA, evidence.run, tuple(each.facts for each in judged))
    backends = {
        each.facts.label: _Footing(each.verdict, each.sentence, each.counts(), each.cells)
        for each in judged
    }
    footer = _Footer(len(results), summary, backends, evidence.run.complete)
    lines = [
        {"kind": "header", **asdict(header)},
        *({"kind": "result", **asdict(each)} for each in results),
        {"kind": "footer", **asdict(footer)},
    ]
    return "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines)


def read(path: Path) -> Evidence:
    """Return the evidence that a file holds.

    Raises:
        EvidenceError: it has no header or footer, is of another schema, its counts do not add
            up, a verdict does not follow from them, or a backend is called conformant although
            tests were left out.
        OSError: it cannot be read.
    """
    try:
        return _evidence(_lines(path.read_bytes()))
    except (EvidenceError, ValueError) as exc:
        raise EvidenceError(f"{path.name}: {exc}") from None


def _lines(content: bytes) -> Sequence[Mapping[str, Any]]:
    """Return the objects of the lines, header first and footer last."""
    lines: list[dict[str, Any]] = []
    for number, line in enumerate(content.decode("utf-8").removesuffix("\n").split("\n"), 1):
        try:
            lines.append(dict(json.loads(line)))
        except (ValueError, TypeError, RecursionError):
            raise EvidenceError(f"line {number} is no JSON object") from None
    kinds = [line.get("kind") for line in lines]
    if kinds[:1] != ["header"]:
        raise EvidenceError("the first line is no header")
    if lines[0].get("schema") != SCHEMA:
        raise EvidenceError(f"it is of schema {lines[0].get('schema')!r}, and not {SCHEMA}")
    if kinds[-1] != "footer":
        raise EvidenceError("the last line is no footer: it was cut off")
    if set(kinds[1:-1]) - {"result"}:
        raise EvidenceError("between header and footer is something else than results")
    return lines


def _evidence(lines: Sequence[Mapping[str, Any]]) -> Evidence:
    header = build(_Header, _without_kind(lines[0]))
    footer = build(_Footer, _without_kind(lines[-1]))
    results = tuple(build(Result, _without_kind(line)) for line in lines[1:-1])
    labels = [each.label for each in header.backends]
    if footer.results != len(results) or (footer.summary and results):
        raise EvidenceError(f"the footer counts {footer.results} results, not {len(results)}")
    if footer.complete is not header.run.complete:
        raise EvidenceError("header and footer disagree whether the run is complete")
    if sorted(labels) != sorted(footer.backends):
        raise EvidenceError("header and footer are about different backends")
    if strangers := {each.backend for each in results}.difference(labels):
        raise EvidenceError(f"there are results of other backends: {', '.join(sorted(strangers))}")
    judged: list[Judged] = []
    for facts in header.backends:
        footing = footer.backends[facts.label]
        found = Judged(
            facts=facts,
            verdict=footing.verdict,
            sentence=footing.sentence,
            cells=footing.clauses,
        )
        _check(found, header.run, footing.counts)
        if not footer.summary:
            _check_cells(found, [one for one in results if one.backend == facts.label])
        judged.append(found)
    return Evidence(run=header.run, judged=tuple(judged), results=results)


def _without_kind(line: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in line.items() if name != "kind"}


def _check(judged: Judged, run: RunFacts, counts: object) -> None:
    """Refuse counts and verdicts that do not follow from how the clauses stand."""
    label, verdict = judged.facts.label, judged.verdict
    if judged.counts() != counts:
        raise EvidenceError(f"the counts of {label} do not add up")
    standings = [cell.standing for cell in judged.cells.values()]
    if verdict is Verdict.CONFORMANT and not run.whole:
        raise EvidenceError(f"{label} is called conformant, and not every test was run")
    proven = not PROVEN.isdisjoint(standings)
    if verdict is Verdict.PARTIAL and not _HIDING.isdisjoint(standings):
        proven = True
    follows = judge(standings, proven=proven, whole=run.whole)
    if follows is not verdict is not Verdict.NON_CONFORMANT:  # it may be for what was undeclared
        raise EvidenceError(f"{label} is called {verdict}, and its clauses say {follows}")


def _check_cells(judged: Judged, results: Iterable[Result]) -> None:
    """Refuse clauses that do not stand as their tests say."""
    seen: dict[str, list[Standing]] = {}
    for result in results:
        if result.standing is not None:
            seen.setdefault(result.clause, []).append(result.standing)
    if strangers := seen.keys() - judged.cells.keys():
        raise EvidenceError(f"there are results of other clauses: {', '.join(sorted(strangers))}")
    for clause_id, why in _wrong(judged.cells, seen):
        raise EvidenceError(f"{clause_id} of {judged.facts.label} {why}")


def _wrong(
    cells: Mapping[str, Cell], seen: Mapping[str, Sequence[Standing]]
) -> Iterator[tuple[str, str]]:
    for clause_id, cell in cells.items():
        standings = seen.get(clause_id, ())
        if cell.standing is not worst(standings):
            yield clause_id, f"is said to be {cell.standing}, its tests say {worst(standings)}"
        if cell.tests != len(standings):
            yield clause_id, f"is said to have {cell.tests} tests, there are {len(standings)}"
