"""`upshot results list` and `stats`: what lies there, in short."""

from __future__ import annotations

from collections.abc import Sequence

import click

from upshot import clock
from upshot.app import App
from upshot.cli.exits import OK
from upshot.cli.parameters import json_option
from upshot.cli.printing import (
    safe,
    show_field,
    show_json,
    show_note,
    show_parts,
    show_styled_table,
    show_word,
)
from upshot.cli.report import Report, iso
from upshot.cli.results.filters import filter_options
from upshot.cli.results.moments import SPAN, short_span
from upshot.cli.results.source import Source, source_option
from upshot.cli.results.styles import styled
from upshot.inventory import MAX_SORTED, Filter, Page, Statistics, last_change, newest, statistics
from upshot.record import Record

__all__ = ["list_", "stats"]

_LIST = f"""List results, the last changed first, a page at a time.

All records are read for it, whatever is asked for: services keep them in no order. The last
{MAX_SORTED} of those that are asked for are put in order; --until goes further back.
"""

_LARGEST_PAGE = 1000
_NARROW = 110  # columns; below, a record takes more than one line
_LONGEST_OUTCOME = 60  # characters in a table


@click.command("list", help=_LIST)
@source_option
@filter_options
@click.option(
    "--limit",
    type=click.IntRange(1, _LARGEST_PAGE),
    default=50,
    show_default=True,
    help="Records on a page.",
)
@click.option("--page", type=click.IntRange(1), default=1, help="1 is the last changed ones.")
@click.option("--ids", is_flag=True, help="Print the ids alone, one in a line.")
@json_option
def list_(source: Source, accepted: Filter, limit: int, page: int, ids: bool, as_json: bool) -> int:
    with source.open() as app:
        found = newest(app.results, accepted, limit=limit, page=page)
        if as_json:
            show_json(_to_data(app, found, limit, page))
            return OK
        if ids:
            for record in found.records:
                show_word(record.task_id)
        elif found.records:
            _show(app, found.records)
        client = app.results
    if not ids:
        _show_rest(found, limit, page, where=f"{client.url}, namespace {client.namespace!r}")
    return OK


def _to_data(app: App, found: Page, limit: int, page: int) -> dict[str, object]:
    return {
        "records": [
            Report.of(app, record.task_id, record).to_data()
            | {"changed_at": iso(last_change(record))}
            for record in found.records
        ],
        "matched": found.matched,
        "unreadable": found.unreadable,
        "page": page,
        "pages": _pages(found.matched, limit),
    }


def _pages(matched: int, limit: int) -> int:
    return -(-matched // limit)


def _show(app: App, records: Sequence[Record]) -> None:
    from upshot.cli.terminal import width  # rich, for who prints no JSON

    reports = [(record, Report.of(app, record.task_id, record)) for record in records]
    columns = width()
    if columns < _NARROW:
        for record, report in reports:
            _show_narrow(record, report, columns)
        return
    rows = [
        (
            (_time(record), ""),
            styled(report.state),
            (report.name, ""),
            (report.task_id, ""),
            ("" if report.took is None else short_span(report.took), ""),
            (_shortened(report.outcome), "dim"),
        )
        for record, report in reports
    ]
    show_styled_table(("changed (UTC)", "state", "name", "id", "took", "outcome"), rows)


def _show_narrow(record: Record, report: Report, columns: int) -> None:
    """Show a record in lines that are short, so that none has to be folded within a word."""
    show_parts(styled(report.state), (f"  {report.name}", "bold"))
    show_parts(("  " + report.task_id, ""))
    took = "" if report.took is None else f", took {short_span(report.took)}"
    for text in (_time(record) + took, _shortened(safe(report.outcome), columns - 2)):
        if text:
            show_parts((f"  {text}", "dim"))


def _time(record: Record) -> str:
    moment = clock.to_datetime(last_change(record))
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}"


def _shortened(text: str, columns: int = _LONGEST_OUTCOME) -> str:
    most = max(1, min(columns, _LONGEST_OUTCOME))
    return text if len(text) <= most else text[: most - 1] + "…"


def _show_rest(found: Page, limit: int, page: int, *, where: str) -> None:
    """Say how many there are besides those that were shown."""
    if not found.matched:
        show_note(f"there are no such records at {where}")
    elif found.matched > limit or page > 1:
        pages = _pages(found.matched, limit)
        show_note(f"page {page} of {pages}; {found.matched} records in all")
    if found.unreadable:
        show_note(
            f"{found.unreadable} more cannot be read: `upshot results export` says which and why"
        )


@click.command()
@source_option
@click.option(
    "--within",
    type=SPAN,
    default="1h",
    show_default=True,
    help="How soon what is counted as expiring has gone.",
)
@json_option
def stats(source: Source, within: float, as_json: bool) -> int:
    """Count and measure the records.

    Bytes are those of the records themselves; what a service takes beyond that, it alone knows. No
    service tells when a record expires either: outcomes are counted that are gone in time if they
    were stored with result_expires as it is set here.
    """
    with source.open() as app:
        found = statistics(app.results, within=within)
        expires = app.results.expires
    if as_json:
        show_json(
            {
                "count": found.count,
                "unreadable": found.unreadable,
                "bytes": found.bytes,
                "largest": found.largest,
                "states": dict(sorted(found.states.items())),
                "oldest": iso(found.oldest),
                "newest": iso(found.newest),
                "expiring": found.expiring,
                "within": within,
            }
        )
    else:
        _show_statistics(found, within, expires)
    return OK


def _show_statistics(found: Statistics, within: float, expires: float | None) -> None:
    show_field("records", str(found.count))
    for state, count in sorted(found.states.items()):
        show_field("  " + safe(state), str(count))
    if found.unreadable:
        show_field("unreadable", str(found.unreadable))
    show_field("bytes", f"{found.bytes} (longest record: {found.largest})")
    for label, moment in (("oldest", found.oldest), ("newest", found.newest)):
        shown = iso(moment)
        if moment is not None and shown is not None:
            age = short_span(max(0.0, clock.now() - moment))
            show_field(label, f"{shown} ({age} ago)")
    if expires is None or found.expiring is None:
        show_field("expiring", "never: result_expires is none")
    else:
        about = f"within {short_span(within)}, if kept for {short_span(expires)}"
        show_field("expiring", f"{found.expiring} {about}")
