"""The figures in `docs/celery-backends.md`, made from what `scripts.celery_backends` keeps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from scripts.celery_notes import Note, not_measured, notes_on

from upshot_conformance.clauses import CLAUSES
from upshot_conformance.contract import GROUPS
from upshot_conformance.findings import Standing
from upshot_conformance.report import EvidenceError
from upshot_conformance.report.evidence import Evidence, Judged
from upshot_conformance.report.marks import MARKS

__all__ = ["BEGIN", "END", "Plain", "mark", "updated"]

_ISSUES: Final = "https://github.com/celery/celery/issues"
_CONTRACT: Final = "../conformance/CONTRACT.md"
BEGIN: Final = "<!-- celery:begin, made by `python -m scripts.celery_backends write` -->"
END: Final = "<!-- celery:end -->"

_LEGEND: Final = "\n".join(
    f"- {each.sign} {each.short}: {each.meaning}"
    for each in MARKS.values()
    if each.short != "early"
)


class Plain(NamedTuple):
    """What Celery itself did.

    Attributes:
        versions: of the distributions that took part, by name.
        seen: by what was done, with the clause that it is about before a colon: by backend, what
            was seen.
    """

    versions: Mapping[str, str]
    seen: Mapping[str, Mapping[str, str]]


def updated(text: str, evidences: Sequence[Evidence], plain: Plain) -> str:
    """Return the page with the figures as they should be.

    Raises:
        EvidenceError: a clause is broken of which nobody has said what was seen.
        ValueError: the page has no markers.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page needs the lines {BEGIN} and {END}")
    sections = "\n\n".join(_sections(evidences, plain))
    return f"{before}{BEGIN}\n\n{sections}\n\n{END}{after}"


def _sections(evidences: Sequence[Evidence], plain: Plain) -> Iterator[str]:
    judged = [each for evidence in evidences for each in evidence.judged]
    yield _table(["clause", "what is done", "backend", "what was seen"], _plain_rows(plain.seen))
    yield "## The matrix"
    yield _table(["", *(f"`{each.facts.label}`" for each in judged)], _rows(judged))
    yield _LEGEND
    yield "## What is broken, and how"
    yield from _broken(judged)
    yield "## What says nothing about Celery"
    yield "\n".join(_absent(judged))
    yield "## Versions"
    yield _table(["backend", "server", "run", "seconds"], _versions(evidences))
    yield _made_with(evidences, plain.versions)


def mark(judged: Judged, clause_id: str) -> str:
    """Return what stands in the cell of a clause and a backend."""
    if not_measured(clause_id, judged.facts.label):
        shown = MARKS[Standing.ABSENT]
    else:
        shown = MARKS[judged.cells[clause_id].standing]
    return shown.sign if shown is MARKS[Standing.PASSED] else f"{shown.sign} {shown.short}"


def _rows(judged: Sequence[Judged]) -> Iterator[list[str]]:
    for clause_id in CLAUSES:
        yield [
            f"[{clause_id}]({_CONTRACT}#{clause_id})",
            *(mark(each, clause_id) for each in judged),
        ]


def _is_broken(judged: Judged, clause_id: str) -> bool:
    failed = judged.cells[clause_id].standing is Standing.FAILED
    return failed and not not_measured(clause_id, judged.facts.label)


def _broken(judged: Sequence[Judged]) -> Iterator[str]:
    for group, what in GROUPS.items():
        ids = [each for each in CLAUSES if CLAUSES[each].group == group]
        told = [line for clause_id in ids for line in _lines_on(judged, clause_id)]
        if told:
            yield f"### {what}"
            yield "\n".join(told)


def _lines_on(judged: Sequence[Judged], clause_id: str) -> Iterator[str]:
    labels = [each.facts.label for each in judged if _is_broken(each, clause_id)]
    if not labels:
        return
    yield f"- **{clause_id}** {CLAUSES[clause_id].text}"
    said: dict[Note, list[str]] = {}
    for label in labels:
        notes = notes_on(clause_id, label)
        if not notes:
            raise EvidenceError(f"{clause_id} is broken on {label}, and no note says how")
        for note in notes:
            said.setdefault(note, []).append(label)
    for note, where in said.items():
        issues = ", ".join(f"[#{number}]({_ISSUES}/{number})" for number in note.issues)
        names = ", ".join(f"`{label}`" for label in where)
        yield f"  - {names}: {note.text}" + (f" ({issues})" if issues else "")


def _absent(judged: Sequence[Judged]) -> Iterator[str]:
    reasons: dict[str, list[str]] = {}
    for clause_id in CLAUSES:
        for each in judged:
            if reason := not_measured(clause_id, each.facts.label):
                ids = reasons.setdefault(reason, [])
                ids += [clause_id] * (clause_id not in ids)
    for reason, ids in reasons.items():
        yield f"- {', '.join(ids)}: {reason}."


def _plain_rows(plain: Mapping[str, Mapping[str, str]]) -> Iterator[list[str]]:
    for what, seen in plain.items():
        clause_id, _, done = what.partition(": ")
        for saw, labels in _by_what_was_seen(seen).items():
            yield [clause_id, done, ", ".join(f"`{label}`" for label in labels), saw]


def _by_what_was_seen(seen: Mapping[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for label, saw in seen.items():
        found.setdefault(saw, []).append(label)
    return found


def _versions(evidences: Sequence[Evidence]) -> Iterator[list[str]]:
    for evidence in evidences:
        for each in evidence.judged:
            day = evidence.run.started.partition("T")[0]
            seconds = f"{evidence.run.duration:.0f}"
            facts = each.facts
            yield [f"`{facts.label}`", facts.server, day, seconds]


def _made_with(evidences: Sequence[Evidence], versions: Mapping[str, str]) -> str:
    run = evidences[0].run
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"Contract {run.contract}, upshot {run.version}, {named}; {run.python}, {run.platform}."


def _table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
