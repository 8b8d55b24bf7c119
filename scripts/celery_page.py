"""The figures in `docs/celery-backends.md`, made from what `scripts.celery_backends` keeps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from scripts.celery_notes import LABELS, NOT_MEASURED, Note, not_measured, notes_on

from upshot_conformance.clauses import CLAUSES
from upshot_conformance.contract import GROUPS
from upshot_conformance.findings import Standing
from upshot_conformance.report import EvidenceError
from upshot_conformance.report.marks import MARKS

__all__ = ["BEGIN", "END", "Kept", "Plain", "mark", "updated"]

_ISSUES: Final = "https://github.com/celery/celery/issues"
_CONTRACT: Final = "../conformance/CONTRACT.md"
BEGIN: Final = "<!-- celery:begin, made by `python -m scripts.celery_backends write` -->"
END: Final = "<!-- celery:end -->"

_LEGEND: Final = "\n".join(
    f"- {MARKS[standing].sign} {MARKS[standing].short}: {meaning}"
    for standing, meaning in (
        (Standing.PASSED, "tested, and kept"),
        (Standing.REFUSED, "not offered, and refused as it must be: tested"),
        (Standing.ABSENT, "it says nothing about Celery, or there is nothing of the kind"),
        (Standing.FAILED, "broken, as told below"),
    )
)


class Kept(NamedTuple):
    """How the clauses that were measured stand on one backend.

    Attributes:
        label: the URL scheme.
        server: what the service says it is.
        contract, upshot, python, platform: of the last run.
        standings: by clause.
        days: by clause: when it was measured.
    """

    label: str
    server: str
    contract: str
    upshot: str
    python: str
    platform: str
    standings: Mapping[str, Standing]
    days: Mapping[str, str]


class Plain(NamedTuple):
    """What Celery itself did.

    Attributes:
        versions: of the distributions that took part, by name.
        seen: by what was done, with the clause that it is about before a colon: by backend, what
            was seen.
    """

    versions: Mapping[str, str]
    seen: Mapping[str, Mapping[str, str]]


def updated(text: str, kept: Sequence[Kept], plain: Plain) -> str:
    """Return the page with the figures as they should be.

    Raises:
        EvidenceError: a clause is broken of which nobody has said what was seen.
        ValueError: the page has no markers.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page needs the lines {BEGIN} and {END}")
    sections = "\n\n".join(_sections(kept, plain))
    return f"{before}{BEGIN}\n\n{sections}\n\n{END}{after}"


def _sections(kept: Sequence[Kept], plain: Plain) -> Iterator[str]:
    yield _table(["clause", "what is done", "backend", "what was seen"], _plain_rows(plain.seen))
    yield "## The matrix"
    yield _table(["", *(f"`{each.label}`" for each in kept)], _rows(kept))
    yield _LEGEND
    yield "## What is broken, and how"
    yield from _broken(kept)
    yield "## What says nothing about Celery"
    yield "\n".join(_silent())
    yield "## Versions"
    yield _table(["backend", "server", "measured"], _versions(kept))
    yield _made_with(kept[-1], plain.versions)


def mark(kept: Kept, clause_id: str) -> str:
    """Return what stands in the cell of a clause and a backend."""
    if not_measured(clause_id, kept.label):
        shown = MARKS[Standing.ABSENT]
    else:
        shown = MARKS[kept.standings.get(clause_id, Standing.NOT_RUN)]
    return shown.sign if shown is MARKS[Standing.PASSED] else f"{shown.sign} {shown.short}"


def _rows(kept: Sequence[Kept]) -> Iterator[list[str]]:
    for clause_id in CLAUSES:
        yield [
            f"[{clause_id}]({_CONTRACT}#{clause_id})",
            *(mark(each, clause_id) for each in kept),
        ]


def _is_broken(kept: Kept, clause_id: str) -> bool:
    failed = kept.standings.get(clause_id) is Standing.FAILED
    return failed and not not_measured(clause_id, kept.label)


def _broken(kept: Sequence[Kept]) -> Iterator[str]:
    for group, what in GROUPS.items():
        ids = [each for each in CLAUSES if CLAUSES[each].group == group]
        told = [line for clause_id in ids for line in _lines_on(kept, clause_id)]
        if told:
            yield f"### {what}"
            yield "\n".join(told)


def _lines_on(kept: Sequence[Kept], clause_id: str) -> Iterator[str]:
    labels = [each.label for each in kept if _is_broken(each, clause_id)]
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


def _silent() -> Iterator[str]:
    for each in NOT_MEASURED:
        names = ", ".join(f"`{label}`" for label in each.labels)
        where = "" if each.labels == LABELS else f" on {names}"
        yield f"- {', '.join(each.clauses)}{where}: {each.text}."


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


def _versions(kept: Sequence[Kept]) -> Iterator[list[str]]:
    for each in kept:
        yield [f"`{each.label}`", each.server, ", ".join(sorted(set(each.days.values())))]


def _made_with(last: Kept, versions: Mapping[str, str]) -> str:
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"Contract {last.contract}, upshot {last.upshot}, {named}; {last.python}, {last.platform}."
    )


def _table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
