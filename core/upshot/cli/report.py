"""A record as an operator sees it: decoded, with times as text, and printable as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from upshot import clock
from upshot.app import App
from upshot.cli.printing import as_text, is_plain, json_or_repr, shown
from upshot.errors import UpshotError
from upshot.failure import Failure
from upshot.items import count_of
from upshot.masking import mask
from upshot.outcome import decode_value
from upshot.record import Payload, Record
from upshot.states import State

__all__ = ["Report", "iso"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What is known about one task id.

    Attributes:
        task_id: which task.
        state: `PENDING` if there is no record.
        name, queue, worker: "" if unknown.
        attempts: how often it was begun.
        queued_at, started_at, finished_at: ISO 8601 in UTC; None if it has not happened.
        took: seconds from the beginning of the last attempt to its end; None if it has not ended.
        info: the last progress report; None if there was none.
        value: of a task that succeeded.
        items: how many it had yielded when it ended; None if it does not stream, or was cut off.
        failure: of a task that failed, or of the last attempt.
        unreadable: why a part of the record cannot be decoded here; "" if it can.
    """

    task_id: str
    state: str = State.PENDING
    name: str = ""
    queue: str = ""
    worker: str = ""
    attempts: int = 0
    queued_at: str | None = None
    started_at: str | None = None
    finished_at: str | None = None
    took: float | None = None
    info: Any = None
    value: Any = None
    items: int | None = None
    failure: Failure | None = None
    unreadable: str = ""

    @property
    def has_failed(self) -> bool:
        """Whether the task failed or was revoked, or nobody here can tell what it returned."""
        return self.state in (State.FAILURE, State.REVOKED) or bool(self.unreadable)

    @property
    def outcome(self) -> str:
        """The value, or the exception, in one line; "" if there is none yet."""
        if self.unreadable:
            return f"cannot be shown: {self.unreadable}"
        if self.failure is not None:
            return f"{self.failure.type_name}: {self.failure.message}"
        if self.items is not None and self.value is None:
            return "1 item" if self.items == 1 else f"{self.items} items"
        return as_text(self.value) if self.state == State.SUCCESS else ""

    @classmethod
    def of(cls, app: App, task_id: str, record: Record | None) -> Report:
        """Decode `record` with the app's serializers; what they refuse is said in `unreadable`."""
        if record is None:
            return cls(task_id=task_id)
        info: Any = None
        value: Any = None
        failure: Failure | None = None
        unreadable = ""
        try:
            info = record.info and decode_value(app.codecs, record.info)
            if record.outcome is not None and record.state == State.SUCCESS:
                # Through the handle, which knows the dataclasses in the task's annotation.
                value = app.AsyncResult(task_id).holding(record).result
            elif record.outcome is not None:
                failure = _failure(app, record.outcome)
        except UpshotError as exc:  # also of where large values are, or of what unpacks them
            unreadable = str(exc)
        return cls(
            task_id=task_id,
            state=record.state,
            name=record.name,
            queue=record.queue,
            worker=record.worker,
            attempts=0 if record.started_at is None else record.attempt,
            queued_at=iso(record.queued_at),
            started_at=iso(record.started_at),
            finished_at=iso(record.finished_at),
            took=_span(record.started_at, record.finished_at),
            info=info,
            value=value,
            items=count_of(record),
            failure=failure,
            unreadable=unreadable,
        )

    def to_data(self) -> dict[str, object]:
        """Return it as plain JSON data.

        `value` is the task's value if that is plain JSON; otherwise it is null, and `repr` says
        what Python would show. An id without a record is what somebody typed: a password in it
        is hidden.
        """
        return {
            "id": mask(self.task_id) if self.state == State.PENDING else self.task_id,
            "state": self.state,
            "name": self.name or None,
            "queue": self.queue or None,
            "worker": self.worker or None,
            "attempts": self.attempts,
            "queued_at": self.queued_at,
            "started_at": self.started_at,
            "finished_at": self.finished_at,
            "took": self.took,
            "info": json_or_repr(self.info),
            "value": self.value if is_plain(self.value) else None,
            "repr": None if is_plain(self.value) else shown(self.value),
            "items": self.items,
            "failure": self.failure
            and {
                "type": self.failure.type_name,
                "message": self.failure.message,
                "traceback": self.failure.traceback,
            },
            "unreadable": self.unreadable or None,
        }


def iso(seconds: float | None) -> str | None:
    """Return a moment, in seconds since the epoch, as ISO 8601 in UTC; None stays None."""
    moment = clock.to_datetime(seconds)
    return None if moment is None else moment.isoformat()


def _span(began: float | None, ended: float | None) -> float | None:
    """Return how long it was, never less than nothing: two machines may tell the two times."""
    return None if began is None or ended is None else max(0.0, ended - began)


def _failure(app: App, payload: Payload) -> Failure:
    return Failure.from_data(app.codecs.decode(payload.content_type, payload.body))
