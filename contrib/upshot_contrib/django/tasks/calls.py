"""One call of a task: its arguments, and what was said about it when it was enqueued.

Django shows all of that with a result, while a record of upshot holds no arguments. So they are
kept in a record beside it, with an id and a state of their own:

    ID         the task's record, as for every other task
    ID/call    state CALL; its info is the call

The second is stored before the message is sent, and kept for as long as the task may wait and run.
The worker stores it again when the task ends, with the expiry of the outcome. What the worker needs
of it travels with the message. Where results are carried (`rpc://`), there is no such record.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, cast, final

from django.tasks.base import Task
from django.tasks.exceptions import InvalidTask, InvalidTaskBackend, TaskResultMismatch
from django.utils import timezone

from upshot import App, clock
from upshot.context import TaskContext
from upshot.envelope import unfinished
from upshot.errors import DecodeError, ServiceError
from upshot.outcome import decode_value, encode_value
from upshot.record import Record, printable
from upshot.request import FAR
from upshot.serializers import Codecs
from upshot_contrib.django.companions import CALL, call_id
from upshot_contrib.django.tasks.known import KNOWN
from upshot_contrib.django.tasks.values import plain

__all__ = ["HEADER", "Call", "check_run_after", "is_carried", "level"]

if TYPE_CHECKING:
    _Task = Task[..., Any]
else:
    _Task = Task  # generic for type checkers only

HEADER: Final = "django.tasks"
"""The header of a message under which the call travels, without name, queue and arguments."""

_ZERO: Final = 4  # what priority 0 is on upshot's scale of 0 to 9


def is_carried(app: App) -> bool:
    """Tell whether results are carried to who enqueued the task, and nothing is kept."""
    return bool(app.results.backend.reply_to)


def level(priority: int) -> int:
    """Return Django's priority, -100 to 100, on upshot's scale of 0 to 9.

    0, which every task has that names none, is 4 alone; below it are 4 steps of 25, above it 5
    steps of 20. Within one step, first in is first out.
    """
    if priority > 0:
        return _ZERO + (priority + 19) // 20
    return _ZERO + priority // 25


def check_run_after(run_after: object) -> None:
    """Check when a task may run: Django looks at the zone alone, and only where there are zones.

    Raises:
        InvalidTask: it is neither None nor a moment that a message takes.
    """
    if run_after is None:
        return
    if not isinstance(run_after, datetime):
        raise InvalidTask(f"run_after must be a datetime, not {type(run_after).__name__}.")
    try:
        seconds = _aware(run_after).timestamp()
    except (OverflowError, ValueError):  # its zone takes it out of the calendar
        seconds = FAR
    if abs(seconds) >= FAR:
        raise InvalidTask("run_after must be less than 100 years from 1970.")


def _aware(moment: datetime) -> datetime:
    """Return it with a zone: what Django takes as naive is in the project's."""
    return timezone.make_aware(moment) if timezone.is_naive(moment) else moment


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What was called, and how.

    Attributes:
        name: the task's module path.
        args, kwargs: plain JSON values.
        queue, priority, run_after, backend: as in Django's `Task`.
        enqueued_at: seconds since the epoch; None if the message came from no backend of ours.
    """

    name: str
    args: list[Any]
    kwargs: dict[str, Any]
    queue: str
    priority: int
    run_after: datetime | None
    backend: str
    enqueued_at: float | None

    @classmethod
    def of(cls, task: _Task, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Call:
        """Return the call that is made now.

        Raises:
            TypeError: an argument is no JSON value.
        """
        return cls(
            name=task.module_path,
            args=plain(list(args)),
            kwargs=plain(dict(kwargs)),
            queue=task.queue_name,
            priority=int(task.priority),
            run_after=task.run_after,
            backend=task.backend,
            enqueued_at=clock.now(),
        )

    @classmethod
    def of_message(cls, run: TaskContext, args: list[Any], kwargs: dict[str, Any]) -> Call:
        """Return the call that a message stands for.

        One that was sent by name, with `app.send_task`, is a call as the task was declared.

        Raises:
            DecodeError: what travelled with it is no call.
            TaskResultMismatch: no such task was declared.
        """
        mine = {"name": run.name, "args": args, "kwargs": kwargs, "queue": run.queue}
        header = run.headers.get(HEADER)
        if header is None:
            task = _known(run.name)
            header = {"priority": task.priority, "run_after": None, "backend": task.backend}
            header["enqueued_at"] = None
        if not isinstance(header, Mapping):
            raise DecodeError(f"the header {HEADER} of a message is a mapping")
        return cls._from_data({**header, **mine})

    @classmethod
    def of_record(cls, record: Record, codecs: Codecs) -> Call:
        """Return the call that a record holds.

        Raises:
            DecodeError, UntrustedContentError: it holds none, or none that can be read.
        """
        if record.info is None:
            raise DecodeError("the record of a call has an info")
        data: object = decode_value(codecs, record.info)
        return cls._from_data(data)

    @classmethod
    def _from_data(cls, data: object) -> Call:
        match data:
            case {
                "name": str(),
                "args": list(),
                "kwargs": dict(),
                "queue": str(),
                "priority": int(),
                "run_after": str() | None,
                "backend": str(),
                "enqueued_at": float() | int() | None,
            }:
                fields = cast("dict[str, Any]", data)
                fields["run_after"] = _run_after(fields["run_after"])
                _check_moment(fields["enqueued_at"])
                return cls(**{name: fields[name] for name in cls.__slots__})
            case _:
                raise DecodeError("it is not the call of a task")

    def header(self) -> dict[str, Any]:
        """Return what travels with the message; plain JSON values."""
        data = self._data()
        return {name: data[name] for name in ("priority", "run_after", "backend", "enqueued_at")}

    def keep(self, app: App, task_id: str) -> None:
        """Store it beside the record of `task_id`, for as long as the task may wait and run.

        Raises:
            EncodeError: an argument cannot be encoded.
            PayloadTooLargeError, ServiceError: the result backend does not take it.
        """
        expires = app.settings.result_expires
        longest = unfinished(expires)
        if longest is not None and expires is not None:
            eta = self.eta
            delay = 0.0 if eta is None else max(0.0, eta.timestamp() - clock.now())
            expires += longest + delay  # the outcome is kept for `expires` after all the rest
        self._store(app, task_id, expires)

    def keep_on(self, app: App, task_id: str) -> None:
        """Keep it as long as the outcome that is about to be stored, and no longer.

        While the result backend is away it stays as it is: it will be gone later.
        """
        with contextlib.suppress(ServiceError):
            self._store(app, task_id, app.settings.result_expires)

    def _store(self, app: App, task_id: str, expires: float | None) -> None:
        if is_carried(app):
            return
        record = Record(
            task_id=call_id(task_id),
            state=CALL,
            name=self.name,
            queue=self.queue,
            queued_at=self.enqueued_at,
            info=encode_value(app.codecs, self._data(), root="call"),
        )
        app.results.store(record, expires=expires)

    @property
    def eta(self) -> datetime | None:
        """When it may run, aware."""
        return None if self.run_after is None else _aware(self.run_after)

    def task(self) -> _Task:
        """Return the task as it was called: with that priority, queue, moment and backend.

        If TASKS does not let it be so any more, it is the task as it is declared.

        Raises:
            TaskResultMismatch: this process has not declared it.
        """
        task = _known(self.name)
        try:
            return dataclasses.replace(
                task,
                priority=self.priority,
                queue_name=self.queue,
                run_after=self.run_after,
                backend=self.backend,
            )
        except (InvalidTask, InvalidTaskBackend):
            return task

    def _data(self) -> dict[str, Any]:
        moment = self.run_after
        data = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {**data, "run_after": None if moment is None else moment.isoformat()}


def _known(name: str) -> _Task:
    found = KNOWN.find(name)
    if found is None:
        raise TaskResultMismatch(
            f"No task {printable(name)!r} is declared in this process; the modules `tasks` of "
            "INSTALLED_APPS are imported, and others have to be imported by one of them."
        )
    return found


def _run_after(text: str | None) -> datetime | None:
    try:
        return None if text is None else datetime.fromisoformat(text)
    except ValueError as exc:
        raise DecodeError(f"run_after is no moment: {printable(text or '')!r}") from exc


def _check_moment(seconds: float | None) -> None:
    if seconds is not None and not clock.is_moment(seconds):
        raise DecodeError("enqueued_at is in no calendar")
