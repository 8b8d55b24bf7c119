"""The matrix of the page: a row for each clause, a column for each backend, and every reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

from upshot_conformance.clauses import CLAUSES
from upshot_conformance.contract import GROUPS
from upshot_conformance.findings import Standing
from upshot_conformance.report.evidence import Cell, Judged
from upshot_conformance.report.marks import MARKS
from upshot_conformance.report.markup import Content, Markup, anchor, join, tag
from upshot_conformance.report.reasons import Reasons, places

__all__ = ["grid", "least_width"]

_TEXT_WIDTH: Final = 36
_COLUMN_WIDTH: Final = 3.5
"""Of a clause's id and text together, and of one backend, in rem; as in `page.css`."""
_HINT: Final = "A number beside a mark leads to its reason below the matrix, an id to its clause."


def grid(judged: Sequence[Judged]) -> Markup:
    """Return the legend, the matrix and the notes below it."""
    reasons = Reasons(judged)
    ids = list(dict.fromkeys(name for each in judged for name in each.cells))
    heads = (tag("th", tag("span", each.facts.label), scope="col") for each in judged)
    table = tag(
        "table",
        tag("caption", tag("span", _HINT)),
        tag("thead", tag("tr", *_clause_heads(), *heads)),
        *_groups(judged, ids, reasons),
        class_="matrix",
    )
    return join(_legend(), tag("div", table, class_="scroll", tabindex="0"), _notes(reasons))


def _clause_heads() -> Iterator[Markup]:
    yield tag("th", "Clause", scope="col", class_="clause")
    yield tag("th", scope="col", class_="text", aria_label="Text")


def least_width(backends: int) -> str:
    """Return the style rule that lets the page scroll a matrix that fits into the window."""
    width = _TEXT_WIDTH + _COLUMN_WIDTH * backends
    rule = ".scroll { overflow: visible; max-height: none; }"
    return f"@media (min-width: {width:g}rem) {{ {rule} }}\n"


def _legend() -> Markup:
    marks = (
        tag("li", tag("span", each.sign, class_=f"sign {each.tone}"), f" {each.short}: ", meaning)
        for each in MARKS.values()
        for meaning in [each.meaning]
    )
    return tag("ul", *marks, class_="legend", aria_label="Legend")


def _groups(judged: Sequence[Judged], ids: Sequence[str], reasons: Reasons) -> Iterator[Markup]:
    for group, members in groupby(ids, key=lambda clause_id: clause_id.partition("-")[0]):
        head = tag(
            "th",
            tag("span", tag("a", GROUPS.get(group, group), href=f"#{anchor(group)}")),
            scope="rowgroup",
            colspan=str(len(judged) + 2),
        )
        rows = (_row(judged, clause_id, reasons) for clause_id in members)
        yield tag("tbody", tag("tr", head, class_="group"), *rows)


def _row(judged: Sequence[Judged], clause_id: str, reasons: Reasons) -> Markup:
    clause = CLAUSES.get(clause_id)
    text = clause.text if clause else ""
    link = tag("a", clause_id, href=f"#{anchor(clause_id)}", title=text)
    cells = (_cell(each, clause_id, reasons) for each in judged)
    return tag("tr", tag("th", link, scope="row"), tag("td", text, class_="text"), *cells)


def _cell(judged: Judged, clause_id: str, reasons: Reasons) -> Markup:
    label, cell = judged.facts.label, judged.cells.get(clause_id)
    mark = MARKS[cell.standing if cell else Standing.NOT_RUN]
    title = f"{clause_id} on {label}: {cell.standing if cell else Standing.NOT_RUN}"
    if cell and cell.reasons:
        title += f" ({'; '.join(cell.reasons)})"
    signed: Content = tag("b", mark.sign)
    word = tag("span", mark.short, class_="word")
    if cell and cell.standing is Standing.FAILED:
        place = f"#{anchor('failed', label, clause_id)}"
        signed, word = None, tag("a", tag("b", mark.sign), " ", word, href=place)
    noted = join(*_numbers(cell, reasons)) if cell else None
    return tag(
        "td",
        signed,
        noted,
        " ",
        word,
        id=anchor(label, clause_id),
        title=title,
        class_=f"cell {mark.tone}",
    )


def _numbers(cell: Cell, reasons: Reasons) -> Iterator[Markup]:
    if cell.standing in {Standing.PASSED, Standing.FAILED}:
        return
    for reason in cell.reasons:
        number = str(reasons.number(cell.standing, reason))
        yield tag("sup", tag("a", number, href=f"#reason-{number}"))


def _notes(reasons: Reasons) -> Markup | None:
    lines = [
        tag(
            "li",
            tag("b", standing),
            f": {reason} ",
            tag("span", f"({places(cells)})", class_="places"),
            id=f"reason-{reasons.number(standing, reason)}",
        )
        for (standing, reason), cells in reasons.items()
    ]
    return tag("div", tag("h3", "Reasons"), tag("ol", *lines, class_="notes")) if lines else None
