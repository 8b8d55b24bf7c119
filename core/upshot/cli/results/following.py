"""`upshot results wait` and `watch`: until tasks have ended."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

import click

from upshot import clock
from upshot.app import App
from upshot.cli.exits import FAILED, OK, TIMED_OUT
from upshot.cli.parameters import json_option
from upshot.cli.printing import safe, show_error, show_json_line, show_note, show_parts
from upshot.cli.report import Report
from upshot.cli.results.moments import SPAN, short_span
from upshot.cli.results.source import Source, source_option
from upshot.cli.results.styles import styled
from upshot.client import ResultClient
from upshot.clock import Deadline
from upshot.errors import ResultTimeoutError, ServiceUnavailableError, UpshotError
from upshot.inventory import Filter, newest
from upshot.record import Record, check_task_id
from upshot.states import is_terminal

__all__ = ["wait", "watch"]

_LISTED: Final = 10  # ids that a message names
_SCAN_SHARE: Final = 10  # a look for new tasks takes a tenth of the time at most
_SHORTEST: Final = 0.1  # seconds between two looks


@click.command()
@source_option
@click.argument("task_ids", metavar="ID...", nargs=-1, required=True)
@click.option(
    "-t", "--timeout", type=SPAN, help="At most so long for all together; by default for ever."
)
@json_option
def wait(source: Source, task_ids: tuple[str, ...], timeout: float | None, as_json: bool) -> int:
    """Wait until the tasks have ended, and print each as it does.

    An id without a record is waited for, too: its task may be sent later. With --json: one object
    in a line for each.

    Exit codes: 0 all succeeded; 1 one failed or was revoked, or cannot be read; 124 not all ended
    in time.
    """
    code, missing = OK, dict.fromkeys(map(check_task_id, task_ids))
    with source.open() as app:
        ended = app.results.wait_many(list(missing), timeout=timeout)
        try:
            with contextlib.closing(ended):
                for task_id, found in ended:
                    del missing[task_id]
                    report = _told(app, task_id, found)
                    (_show_json if as_json else _show)(report)
                    code = FAILED if report.has_failed else code
        except ResultTimeoutError as exc:
            if exc.__cause__ is not None:
                raise  # the service could not be read: that it says
            show_error(_late(list(missing), timeout))
            return TIMED_OUT
    return code


def _told(app: App, task_id: str, found: Record | UpshotError | None) -> Report:
    if isinstance(found, UpshotError):
        return Report(task_id=task_id, state="", unreadable=str(found))
    return Report.of(app, task_id, found)


def _show(report: Report) -> None:
    outcome = f"  {report.outcome}" if report.has_failed else ""
    show_parts(styled(report.state or "?"), (f"  {report.task_id}{outcome}".rstrip(), ""))


def _show_json(report: Report) -> None:
    show_json_line(report.to_data())


def _late(task_ids: Sequence[str], timeout: float | None) -> str:
    more = f" and {len(task_ids) - _LISTED} more" if len(task_ids) > _LISTED else ""
    named = ", ".join(task_ids[:_LISTED])
    return f"{len(task_ids)} did not end within {short_span(timeout or 0.0)}: {named}{more}"


# -- watching ---------------------------------------------------------------------------------


class _Seen(NamedTuple):
    """What is to be seen of a task; what changes nothing of it is no news."""

    state: str
    attempts: int
    done: float | None
    text: str


@click.command()
@source_option
@click.argument("task_ids", metavar="[ID]...", nargs=-1)
@click.option("--interval", type=SPAN, default=0.5, help="Between two looks; by default 0.5s.")
@click.option("-t", "--timeout", type=SPAN, help="Stop after so long; by default never.")
@click.option(
    "--limit",
    type=click.IntRange(1, 1000),
    default=20,
    show_default=True,
    help="Without IDs: how many tasks at most.",
)
@json_option
def watch(
    source: Source,
    task_ids: tuple[str, ...],
    interval: float,
    timeout: float | None,
    limit: int,
    as_json: bool,
) -> int:
    """Watch the states and progress of tasks: of these, or of all that have not ended.

    Progress is what a task says by current_task().progress(current, total). Where the output is no
    terminal, each change is a line; with --json, an object in a line.

    Exit codes: with IDs as of `wait`; without, 0 when the time is up. Ctrl-C is 130.
    """
    ids = list(dict.fromkeys(map(check_task_id, task_ids)))
    deadline = Deadline(timeout)
    with source.open() as app:
        found = _Running(app.results, limit).ids if not ids else lambda: ids
        looks = _looks(app, found, interval, deadline, until_ended=bool(ids))
        last = _follow(looks, as_json=as_json)
    if not ids:
        return OK
    if any(report.has_failed and _is_over(report) for report in last):
        return FAILED
    late = [report.task_id for report in last if not _is_over(report)]
    if late:
        show_error(_late(late, timeout))
    return TIMED_OUT if late else OK


class _Running:
    """The tasks that have not ended, looked for now and then.

    Args:
        client: where their records are.
        limit: how many at most, the last changed first; and as many that have ended meanwhile.
    """

    def __init__(self, client: ResultClient, limit: int) -> None:
        self._client = client
        self._limit = limit
        self._ids: list[str] = []
        self._next = 0.0

    def ids(self) -> list[str]:
        """Return those that were found last; an enumeration is not made more often than is fair."""
        began = clock.monotonic()
        if began >= self._next:
            page = newest(self._client, Filter(unfinished=True), limit=self._limit)
            found = dict.fromkeys(record.task_id for record in page.records)
            self._ids = list(found | dict.fromkeys(self._ids))[: 2 * self._limit]
            self._next = clock.monotonic() + _SCAN_SHARE * (clock.monotonic() - began)
        return self._ids


class _Look(NamedTuple):
    """What is known of all tasks, and why that cannot be read at the moment; "" if it can."""

    reports: list[Report]
    trouble: str = ""


def _looks(
    app: App,
    ids: Callable[[], list[str]],
    interval: float,
    deadline: Deadline,
    *,
    until_ended: bool,
) -> Iterator[_Look]:
    """Look at all tasks in one batch, again and again, until the time is up, or all have ended.

    What has ended is not read again. A service that is away at the first look is an error; later it
    may come back.
    """
    look: _Look | None = None
    while True:
        try:
            look = _Look(_reports(app, ids(), [] if look is None else look.reports))
        except ServiceUnavailableError as exc:
            if look is None:
                raise
            look = look._replace(trouble=str(exc))
        yield look
        if deadline.expired or (until_ended and all(map(_is_over, look.reports))):
            return
        clock.sleep(deadline.left(max(interval, _SHORTEST)) or 0.0)


def _reports(app: App, task_ids: Sequence[str], before: Sequence[Report]) -> list[Report]:
    known = {report.task_id: report for report in before if _is_over(report)}
    unknown = [task_id for task_id in task_ids if task_id not in known]
    for task_id, found in zip(unknown, app.results.load_many(unknown), strict=True):
        known[task_id] = _told(app, task_id, found)
    return [known[task_id] for task_id in task_ids]


def _is_over(report: Report) -> bool:
    """Tell whether nothing more will be seen: it has ended, or is no record."""
    return is_terminal(report.state) or not report.state


def _follow(looks: Iterator[_Look], *, as_json: bool) -> list[Report]:
    """Show what changes, as suits the output; return what was seen last."""
    from upshot.cli.terminal import is_live  # rich, for who has asked for help only

    if as_json or not is_live():
        return _follow_in_lines(looks, as_json=as_json)
    return _follow_on_screen(looks)


def _follow_in_lines(looks: Iterator[_Look], *, as_json: bool) -> list[Report]:
    seen: dict[str, _Seen] = {}
    last = _Look([])
    for look in looks:
        if look.trouble and look.trouble != last.trouble:
            show_note(look.trouble)
        last = look
        now = {report.task_id: _seen(report) for report in look.reports}
        for report in look.reports:
            what = now[report.task_id]
            if seen.get(report.task_id) == what:
                continue
            if as_json:
                _show_json(report)
            else:
                show_parts(styled(what.state), (f"  {report.task_id}  {what.text}".rstrip(), ""))
        seen = now
    return last.reports


def _follow_on_screen(looks: Iterator[_Look]) -> list[Report]:
    from upshot.cli.terminal import Bar, bars  # as above

    last = _Look([])
    with bars() as draw:
        for last in looks:
            lines: list[Bar] = []
            for report in last.reports:
                what = _seen(report)
                style = styled(safe(what.state))
                lines.append(Bar(safe(report.task_id), style, what.done, safe(what.text)))
            ended = sum(map(_is_over, last.reports))
            draw(lines, safe(last.trouble) or f"{ended} of {len(lines)} ended")
    return last.reports


def _seen(report: Report) -> _Seen:
    if report.has_failed or is_terminal(report.state):
        text = report.outcome if report.has_failed else ""
        return _Seen(report.state or "?", report.attempts, None, text)
    done, text = _progress(report.info)
    return _Seen(report.state, report.attempts, done, text)


def _progress(info: object) -> tuple[float | None, str]:
    """Return how far a task is, from 0 to 1, and that in words; None if it does not say."""
    if not isinstance(info, dict):
        return None, ""
    said = cast("Mapping[Any, Any]", info)
    current, total = _number(said.get("current")), _number(said.get("total"))
    if current is None:
        return None, ""
    if total is None or total <= 0:
        return None, f"{current:g}"
    done = min(1.0, max(0.0, current / total))
    return done, f"{done:4.0%}  {current:g}/{total:g}"


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
