"""The evidence as Markdown: a matrix for a README, and a whole report."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Literal

from upshot_conformance.clauses import CLAUSES
from upshot_conformance.contract import GROUPS
from upshot_conformance.findings import Standing
from upshot_conformance.report.evidence import Cell, Evidence, Judged, Verdict
from upshot_conformance.report.facts import RunFacts
from upshot_conformance.report.marks import MARKS, VERDICT_MARKS
from upshot_conformance.report.reasons import Reasons, places

__all__ = ["Rows", "kept", "markdown", "matrix"]

Rows = Literal["groups", "clauses"]
"""What the rows of a matrix are."""

_SPECIAL: Final = re.compile(r"([\\`*_\[\]<>|~&#])")


def markdown(evidence: Evidence) -> str:
    """Return the whole report: verdicts, the matrix of clauses, reasons, and what failed."""
    return _document(_report(evidence))


def kept(evidences: Sequence[Evidence]) -> str:
    """Return a report on backends that were tested in several runs, each with its own."""
    return _document(_kept(evidences))


def matrix(judged: Sequence[Judged], rows: Rows = "groups") -> str:
    """Return a table with a column for each backend.

    A row is a group of clauses, with cells such as `9/10 · 1 n/a` (passed of all, and what became
    of the rest), or a clause, with cells such as `✓` or `⊘ refused`.
    """
    heads = [f"`{_code(each.facts.label)}`" for each in judged]
    if rows == "clauses":
        body = [[each, *_marks(judged, each)] for each in _clause_ids(judged)]
    else:
        body = [
            [f"{group}: {_escaped(what.partition(': ')[0])}", *_tallies(judged, group)]
            for group, what in GROUPS.items()
        ]
        body.append(["**verdict**", *(f"**{_verdict(each)}**" for each in judged)])
    return _table(["", *heads], body)


def _document(sections: Iterable[str]) -> str:
    return "\n\n".join(sections) + "\n"


def _report(evidence: Evidence) -> Iterator[str]:
    run, judged = evidence.run, evidence.judged
    yield _title(run.contract)
    yield f"{_summary(judged)} {_when(run)}"
    yield _fenced(shlex.join(run.command))
    if not run.whole:
        left = " ".join(run.filters) or "it was stopped before its last test"
        yield f"**Not every test was run ({_escaped(left)}): this proves no conformance.**"
    yield _verdicts([evidence])
    if run.untested:
        lines = (f"- `{_code(name)}`: {_escaped(why)}" for name, why in run.untested.items())
        yield "Not tested:\n\n" + "\n".join(lines)
    yield from _clauses(judged)
    if failing := list(_failing(evidence)):
        yield "## What failed"
        yield from failing


def _kept(evidences: Sequence[Evidence]) -> Iterator[str]:
    judged = [each for evidence in evidences for each in evidence.judged]
    yield _title(" and ".join(dict.fromkeys(each.run.contract for each in evidences)))
    yield _summary(judged)
    yield _verdicts(evidences)
    yield from _clauses(judged)
    yield "## How it was run"
    yield from dict.fromkeys(
        f"{_when(each.run)}\n\n{_fenced(shlex.join(each.run.command))}" for each in evidences
    )


def _title(contract: str) -> str:
    return f"# Conformance with contract {contract} of upshot"


def _summary(judged: Sequence[Judged]) -> str:
    green = sum(each.verdict is Verdict.CONFORMANT for each in judged)
    return f"{green} of {len(judged)} backends are conformant."


def _when(run: RunFacts) -> str:
    return (
        f"Run at {run.started} with upshot {run.version} on {_escaped(run.python)}, "
        f"{_escaped(run.platform)}, in {run.duration:.0f} s, with the seed {run.seed}:"
    )


def _clauses(judged: Sequence[Judged]) -> Iterator[str]:
    yield "## Matrix"
    yield matrix(judged, "clauses")
    yield "\n".join(f"- {each.sign} {each.short}: {each.meaning}" for each in MARKS.values())
    if told := Reasons(judged).items():
        yield "## Reasons"
        yield "\n".join(
            f"- {places(cells)}: {standing} ({_escaped(reason)})"
            for (standing, reason), cells in told
        )
    yield "## Clauses"
    texts = ((name, CLAUSES[name].text) for name in _clause_ids(judged) if name in CLAUSES)
    yield "\n".join(f"- **{name}** {_escaped(text)}" for name, text in texts)


def _verdicts(evidences: Iterable[Evidence]) -> str:
    rows = [
        [
            f"`{_code(each.facts.label)}`",
            f"{VERDICT_MARKS[each.verdict].sign} {_escaped(each.sentence)}",
            _escaped(each.facts.server or "unknown"),
            _escaped(each.facts.distribution or "unknown"),
            *("/".join(map(str, each.kept(level))) for level in ("core", "extended")),
            _escaped(evidence.run.started.partition("T")[0]),
        ]
        for evidence in evidences
        for each in evidence.judged
    ]
    return _table(["backend", "verdict", "server", "from", "core", "extended", "run"], rows)


def _failing(evidence: Evidence) -> Iterator[str]:
    for result in evidence.results:
        if result.standing is Standing.FAILED:
            yield f"### {result.clause} on `{_code(result.backend)}`"
            yield f"`{_code(result.test)}`"
            yield _fenced(result.message)


def _clause_ids(judged: Iterable[Judged]) -> list[str]:
    return list(dict.fromkeys(clause_id for each in judged for clause_id in each.cells))


def _marks(judged: Iterable[Judged], clause_id: str) -> Iterator[str]:
    for each in judged:
        cell = each.cells.get(clause_id)
        mark = MARKS[Standing.NOT_RUN if cell is None else cell.standing]
        yield mark.sign if mark is MARKS[Standing.PASSED] else f"{mark.sign} {mark.short}"


def _tallies(judged: Iterable[Judged], group: str) -> Iterator[str]:
    for each in judged:
        cells = [cell for name, cell in each.cells.items() if name.partition("-")[0] == group]
        yield _tally(cells)


def _verdict(judged: Judged) -> str:
    """Return the sign alone if all is well, so that the table stays narrow."""
    green = judged.verdict is Verdict.CONFORMANT
    return VERDICT_MARKS[judged.verdict].sign if green else str(judged.verdict)


def _tally(cells: Sequence[Cell]) -> str:
    count = Counter(cell.standing for cell in cells)
    rest = [each for each in Standing if each is not Standing.PASSED and count[each]]
    return " · ".join(
        [
            f"{count[Standing.PASSED]}/{len(cells)}",
            *(f"{count[each]} {MARKS[each].short}" for each in rest),
        ]
    )


def _table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _escaped(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _code(text: str) -> str:
    """Return the text for a code span inside a table, which knows no escapes but for the bar."""
    return " ".join(text.replace("`", "'").split()).replace("|", r"\|")


def _fenced(text: str) -> str:
    """Return a block that no line of the text can end."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"
