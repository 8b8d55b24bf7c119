"""The clauses of the page, each with its reason, who keeps it, and which tests say so."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Final

from upshot_conformance.clauses import CLAUSES
from upshot_conformance.contract import GROUPS
from upshot_conformance.findings import Standing
from upshot_conformance.report.evidence import Evidence, Judged, Result
from upshot_conformance.report.marks import MARKS
from upshot_conformance.report.markup import Markup, anchor, join, tag

__all__ = ["chapters"]

_TOLD: Final = frozenset({Standing.FAILED, Standing.WAIVED, Standing.PROVISIONAL})
"""The standings of tests whose message is shown."""


def chapters(evidence: Evidence) -> Iterator[Markup]:
    """Yield a heading for each group, and an article for each clause."""
    results: dict[str, list[Result]] = {}
    for result in evidence.results:
        results.setdefault(result.clause, []).append(result)
    ids = dict.fromkeys(name for each in evidence.judged for name in each.cells)
    for group, members in groupby(ids, key=lambda clause_id: clause_id.partition("-")[0]):
        yield tag("h3", GROUPS.get(group, group), id=anchor(group))
        for clause_id in members:
            yield _article(clause_id, evidence.judged, results.get(clause_id, []))


def _article(clause_id: str, judged: Sequence[Judged], results: Sequence[Result]) -> Markup:
    clause = CLAUSES.get(clause_id)
    level = "core"
    if clause and clause.gate:
        level = f"where {clause.gate} is declared"
    link = tag("a", clause_id, href=f"#{anchor(clause_id)}")
    return tag(
        "article",
        tag("h4", link, " ", tag("small", level)),
        tag("p", clause.text) if clause else None,
        tag("p", clause.why, class_="why") if clause else None,
        _standings(clause_id, judged),
        *_messages(results),
        _tests(results),
        id=anchor(clause_id),
        class_="chapter",
    )


def _standings(clause_id: str, judged: Sequence[Judged]) -> Markup:
    """Return who keeps the clause and who does not, in as few lines as there are answers."""
    labels: dict[tuple[Standing, tuple[str, ...]], list[str]] = {}
    for each in judged:
        cell = each.cells.get(clause_id)
        key = (cell.standing, cell.reasons) if cell else (Standing.NOT_RUN, ())
        labels.setdefault(key, []).append(each.facts.label)
    lines = (
        tag(
            "li",
            tag("span", MARKS[standing].sign, class_=f"sign {MARKS[standing].tone}"),
            f" {standing}: {_where(where, len(judged))}",
            tag("span", f" ({_why(standing, told)})", class_="places") if told else None,
        )
        for (standing, told), where in labels.items()
    )
    surprising = [each.facts.label for each in judged if _works_undeclared(each, clause_id)]
    more = tag("li", f"works although it is not declared: {', '.join(surprising)}")
    return tag("ul", *lines, more if surprising else None, class_="standings")


def _works_undeclared(judged: Judged, clause_id: str) -> bool:
    cell = judged.cells.get(clause_id)
    return cell is not None and cell.undeclared


def _where(labels: Sequence[str], of: int) -> str:
    if len(labels) < of or of == 1:
        return ", ".join(labels)
    return "both backends" if of == 2 else f"all {of} backends"


def _why(standing: Standing, reasons: Sequence[str]) -> str:
    told = "; ".join(reasons)
    return f"of its tests some were not run: {told}" if standing is Standing.PASSED else told


def _messages(results: Iterable[Result]) -> Iterator[Markup]:
    """Yield what the tests that failed said; the first of each backend can be linked to."""
    linked: set[str] = set()
    for result in results:
        if result.standing is None or result.standing not in _TOLD:
            continue
        place = anchor("failed", result.backend, result.clause)
        mark = MARKS[result.standing]
        summary = tag(
            "summary",
            tag("span", mark.sign, class_=f"sign {mark.tone}"),
            f" {result.backend}: ",
            tag("code", result.test),
        )
        yield tag(
            "details",
            summary,
            tag("p", result.reason) if result.reason else None,
            tag("pre", result.message or "no message"),
            open=result.standing is Standing.FAILED,
            id=None if place in linked else place,
        )
        linked.add(place)


def _tests(results: Sequence[Result]) -> Markup | None:
    """Return the names of the tests, each once, with the longest time that it took."""
    slowest: dict[str, Result] = {}
    for result in results:
        name = result.test.replace(f"[{result.backend}]", "")
        name = name.replace(f"[{result.backend}-", "[").replace(f"-{result.backend}]", "]")
        known = slowest.get(name)
        if known is None or known.seconds < result.seconds:
            slowest[name] = result
    if not slowest:
        return None
    return tag("details", tag("summary", _counted(slowest)), tag("ul", *_named(slowest)))


def _counted(tests: Mapping[str, Result]) -> str:
    return "1 test" if len(tests) == 1 else f"{len(tests)} tests"


def _named(tests: Mapping[str, Result]) -> Iterator[Markup]:
    for name, result in tests.items():
        took = f" at most {result.seconds:.2f} s, on {result.backend}"
        yield tag("li", join(tag("code", name), tag("span", took, class_="places")))
