"""The task that is running now: who it is, and what it can say while it runs."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, final

from upshot.errors import Retry, TaskError

if TYPE_CHECKING:
    from upshot.record import Payload

__all__ = ["ItemSink", "Reporter", "TaskContext", "current_task", "running"]


class ItemSink(Protocol):
    """Where the items of a task go that yields."""

    def add(self, item: Payload) -> bool:
        """Take an item, without I/O; True if `flush` is to be called before the next one.

        Raises:
            PayloadTooLargeError: the result store does not take an item of that length.
        """
        ...

    def flush(self) -> bool:
        """Store what was taken, however long that takes; False if no more is wanted."""
        ...


class Reporter(Protocol):
    """How a running task reaches its worker."""

    def stream(self) -> ItemSink | None:
        """Return where items go; None if they are not kept.

        Raises:
            UnsupportedError: the result store keeps no streams.
        """
        ...

    def progress(self, info: Mapping[str, Any]) -> None:
        """Store `info` beside the state STARTED; never replaces an outcome."""
        ...

    def is_revoked(self) -> bool:
        """Look whether the task was revoked meanwhile."""
        ...


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TaskContext:
    """What a task can know about its own run, and do with it.

    Attributes:
        task_id: whose record the outcome goes to.
        name: the task's registered name.
        queue: where the message came from, "" when the function was called directly.
        attempt: 1 for the first run; each retry and each redelivery adds 1.
        retries: how many of the runs before were retries.
        max_retries: how many there may be; None for no limit. Where `retries` is as many, `retry`
            lets the task fail.
        headers: what the sender let travel along.
        worker: who runs it, "" when the function was called directly.
        is_direct: True when the function was called directly, not by a worker: nothing is
            stored, and `retry` raises the reason itself.
    """

    task_id: str
    name: str
    queue: str = ""
    attempt: int = 1
    retries: int = 0
    max_retries: int | None = None
    headers: Mapping[str, Any]
    worker: str = ""
    is_direct: bool = False
    reporter: Reporter | None = None

    def progress(self, current: float, total: float | None = None, **meta: Any) -> None:
        """Say how far the task is; callers see it as `AsyncResult.info`, and by `updates()`.

        One report is stored per `task_progress_interval`, and the last of a burst when that is
        over, so that a tight loop floods no server; the task's outcome brings the last one along. A
        report that the result store does not take is dropped, and so are those of the next 30
        seconds; the worker's log says so. A store that is away is no reason for a task to fail.

        Args:
            current: units done.
            total: units in all; None if unknown.
            meta: anything else that the result serializer takes.

        Raises:
            EncodeError: `meta` cannot be encoded.
            PayloadTooLargeError: the backend does not take a report of that length.
        """
        if self.reporter is not None:
            self.reporter.progress({**meta, "current": current, "total": total})

    def is_revoked(self) -> bool:
        """Tell whether somebody called `revoke()`; a long task asks now and then, and returns.

        Each call is one round trip to the result backend. While that is away, the answer is False.
        """
        return self.reporter is not None and self.reporter.is_revoked()

    def retry(
        self, *, countdown: float | None = None, reason: BaseException | None = None
    ) -> NoReturn:
        """Leave the task now and run it again later, as often as its `max_retries` allows.

        Args:
            countdown: seconds until then; None takes the task's backoff.
            reason: why; it becomes the failure when no retry is left. None takes the exception
                being handled, if there is one.

        Raises:
            Retry: always, except in a direct call, which raises `reason` if there is one.
        """
        if self.is_direct and reason is not None:
            raise reason
        raise Retry(countdown=countdown, reason=reason)


_current: contextvars.ContextVar[TaskContext | None] = contextvars.ContextVar(
    "upshot_current_task", default=None
)


def current_task() -> TaskContext:
    """Return the context of the task running in this thread or coroutine.

    Raises:
        TaskError: no task is running here.
    """
    context = _current.get()
    if context is None:
        raise TaskError("no task is running here: current_task() works inside a task's function")
    return context


@contextlib.contextmanager
def running(context: TaskContext) -> Generator[None]:
    """Make `context` the current one inside the `with` block."""
    token = _current.set(context)
    try:
        yield
    finally:
        _current.reset(token)
