"""Records as the page shows them: text for people, of bounded length, made in bounded time.

Control characters and marks that turn the direction of text are spelt out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, cast, final

from upshot import clock
from upshot.app import App
from upshot.cli.bounded import (
    bounded,
    is_wrapped,
    laid_out,
    masked,
    report_of,
    size_of,
    spelt,
    unfolded,
    without_repr,
)
from upshot.cli.printing import safe
from upshot.cli.report import Report
from upshot.cli.results.moments import short_span
from upshot.inventory import last_change
from upshot.items import count_of
from upshot.record import Record, printable
from upshot.states import State

__all__ = ["Moment", "Progress", "Row", "Shown", "Text", "kind_of"]

_LISTED_VALUE: Final = 16_384  # bytes of a value, or report, that is decoded for a line of a list
_LISTED_FAILURE: Final = 2**20  # bytes: a failure has half as much of traceback
_LINE: Final = 200  # characters of an outcome in a list
_HEAD, _TAIL = 24_000, 6_000  # characters of a long text; its middle is left out
_WIDTH: Final = 88  # columns of a value
_KINDS: Final[Mapping[str, str]] = {
    State.QUEUED: "queued",
    State.STARTED: "started",
    State.RETRY: "retry",
    State.SUCCESS: "success",
    State.FAILURE: "failure",
    State.REVOKED: "revoked",
}


def kind_of(state: str) -> str:
    """Return the class of a state's colours; the tasks' own states share one."""
    return _KINDS.get(state, "other")


@final
@dataclass(frozen=True, slots=True)
class Moment:
    """A moment, in UTC.

    Attributes:
        iso: for programs.
        text: for people, to the second.
        exact: to the millisecond, with the name of the zone.
    """

    iso: str
    text: str
    exact: str

    @classmethod
    def of(cls, seconds: float | None) -> Moment | None:
        """Return a moment from seconds since the epoch; None stays None."""
        moment = clock.to_datetime(seconds)
        return None if moment is None else cls._at(moment)

    @classmethod
    def _at(cls, moment: datetime) -> Moment:
        exact = f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03} UTC"
        return cls(moment.isoformat(), f"{moment:%Y-%m-%d %H:%M:%S}", exact)


@final
@dataclass(frozen=True, slots=True)
class Progress:
    """How far a task says that it is.

    Attributes:
        current, total: as it said; `total` is None if it did not say.
    """

    current: float
    total: float | None

    @classmethod
    def of(cls, info: object) -> Progress | None:
        """Return what a report says by `progress(current, total)`; None if it says something else.

        Never raises, whatever the report is.
        """
        if not isinstance(info, dict):
            return None
        said = cast("Mapping[Any, Any]", info)
        current, total = _number(said.get("current")), _number(said.get("total"))
        if current is None:
            return None
        return cls(current, total if total is not None and total > 0 else None)

    @property
    def text(self) -> str:
        """It in a few characters: `3 of 10`."""
        current = f"{self.current:.6g}"
        return current if self.total is None else f"{current} of {self.total:.6g}"

    @property
    def done(self) -> float:
        """From 0 to 1; 0 if nobody knows."""
        return 0.0 if self.total is None else min(1.0, max(0.0, self.current / self.total))


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if -1e15 < value < 1e15 else None  # false for NaN


@final
@dataclass(frozen=True, slots=True)
class Text:
    """A text of several lines.

    Attributes:
        head: all of it, or its beginning.
        omitted: how many characters are left out behind that.
        tail: its end, if some are left out; otherwise "".
    """

    head: str
    omitted: int = 0
    tail: str = ""

    @classmethod
    def of(cls, text: str) -> Text:
        """Cut a text, and spell out what cannot be printed."""
        if len(text) <= _HEAD + _TAIL:
            return cls(spelt(text))
        return cls(spelt(text[:_HEAD]), len(text) - _HEAD - _TAIL, spelt(text[-_TAIL:]))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the list.

    Attributes:
        task_id, name, queue, worker, state: as in the record; printable.
        link: the id as it is.
        kind: the class of the state's colours.
        outcome: the value or the failure, in a line; "" if there is none yet.
        progress: of a task that has not ended.
        attempts: how often it was begun.
        took: from the last beginning to the end, in a few characters; "" if it has not ended.
        changed: the last change; None if it is not known.
    """

    task_id: str
    link: str
    name: str
    queue: str
    worker: str
    state: str
    kind: str
    outcome: str
    progress: Progress | None
    attempts: int
    took: str
    changed: Moment | None

    @classmethod
    def of(cls, app: App, record: Record) -> Row:
        """Decode as much of a record as a line needs, and has room for."""
        too_large = _too_large(record)
        report = report_of(
            app,
            record._replace(
                outcome=None if too_large else record.outcome,
                info=unfolded(app, record.info, _LISTED_VALUE),
            ),
        )
        outcome = too_large or _outcome(report)
        if report.failure is not None or report.unreadable:
            outcome = safe(outcome)
        return cls(
            task_id=printable(record.task_id),
            link=record.task_id,
            name=printable(record.name),
            queue=printable(record.queue),
            worker=printable(record.worker),
            state=printable(record.state),
            kind=kind_of(record.state),
            outcome=outcome if len(outcome) <= _LINE else outcome[: _LINE - 1] + "…",
            progress=None if record.is_terminal else Progress.of(report.info),
            attempts=report.attempts,
            took="" if report.took is None else short_span(report.took),
            changed=Moment.of(last_change(record)),
        )


def _outcome(report: Report) -> str:
    try:
        return report.outcome
    except Exception as exc:  # the repr() of a class of the user's
        return without_repr(report.value, exc)


def _too_large(record: Record) -> str:
    """Return what stands in a line for an outcome that is not decoded for it; "" if it is."""
    if record.outcome is None:
        return ""
    what = "value" if record.state == State.SUCCESS else "failure"
    most = _LISTED_VALUE if what == "value" else _LISTED_FAILURE
    if len(record.outcome.body) <= most and not is_wrapped(record.outcome):
        return ""
    return f"a {what} {size_of(record.outcome)}; open it to see it"


@final
@dataclass(frozen=True, slots=True)
class Shown:
    """One task as its page shows it.

    Attributes:
        row: what the list has of it, too; None if there is no record, or it cannot be read.
        task_id: printable.
        is_over: whether nothing more will happen.
        steps: what happened when: label, moment, and a remark or "".
        items: how many a task had yielded at its end; None for one that does not stream.
        value: of a task that succeeded.
        info: its last report, if it was no plain progress.
        failure: the class and message of the exception that ended it, or the last attempt.
        traceback: where that was raised.
        unreadable: why a part of the record cannot be shown; "" if all can.
    """

    row: Row | None
    task_id: str
    is_over: bool = False
    steps: tuple[tuple[str, Moment, str], ...] = ()
    items: int | None = None
    value: Text | None = None
    info: Text | None = None
    failure: Text | None = None
    traceback: Text | None = None
    unreadable: str = ""

    @classmethod
    def of(cls, app: App, task_id: str, record: Record | None) -> Shown:
        """Decode a record for its own page, unless that would take too long."""
        if record is None:
            return cls(None, printable(task_id))
        part, left_out = bounded(app, record)
        report, unreadable = report_of(app, part), list(left_out)
        if report.unreadable:
            unreadable.append(report.unreadable)
        failure, progress = report.failure, Progress.of(report.info)
        is_plain_progress = progress is not None and set(report.info) <= {"current", "total"}
        has_value = record.state == State.SUCCESS and part.outcome is not None
        return cls(
            row=Row.of(app, record),
            task_id=printable(task_id),
            is_over=record.is_terminal,
            steps=tuple(_steps(record)),
            items=count_of(record),
            value=Text.of(laid_out(report.value, _WIDTH))
            if has_value and not report.unreadable
            else None,
            info=None
            if report.info is None or is_plain_progress
            else Text.of(laid_out(report.info, _WIDTH)),
            failure=None
            if failure is None
            else Text.of(masked(f"{failure.type_name}: {failure.message}")),
            traceback=Text.of(masked(failure.traceback.rstrip()))
            if failure is not None and failure.traceback
            else None,
            unreadable=safe("; ".join(unreadable)),
        )


def _steps(record: Record) -> list[tuple[str, Moment, str]]:
    steps: list[tuple[str, Moment, str]] = []
    before: float | None = None
    for label, seconds, after in (
        ("Sent", record.queued_at, ""),
        ("Started", record.started_at, "after waiting {}"),
        (record.state.capitalize(), record.finished_at, "after running {}"),
    ):
        moment = Moment.of(seconds)
        if moment is None or seconds is None:
            continue
        span = "" if before is None else short_span(max(0.0, seconds - before))
        remark = after.format(span) if span and after else ""
        if label == "Started" and record.attempt > 1:
            remark = f"attempt {record.attempt}"
        steps.append((printable(label), moment, remark))
        before = seconds
    return steps
