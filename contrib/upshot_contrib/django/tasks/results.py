"""A record as Django sees it: `TaskResult`, and what Django lacks.

What a record does not hold is unknown here: of earlier attempts, only how many there were. Their
workers are "" in `worker_ids`, `errors` holds the last one alone, and `started_at` is that of the
last attempt, as `last_attempted_at`.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Self, cast, final

from asgiref.sync import sync_to_async
from django.conf import settings
from django.tasks import task_backends
from django.tasks.base import TASK_REFRESH_ATTRS, TaskError, TaskResult, TaskResultStatus
from django.utils import timezone

from upshot import App, clock
from upshot.errors import DecodeError, ResultTimeoutError, TaskRevokedError, UpshotError
from upshot.failure import Failure
from upshot.outcome import decode_value
from upshot.record import Record
from upshot.serializers import Codecs
from upshot.states import State
from upshot_contrib.django.companions import call_id
from upshot_contrib.django.tasks.calls import Call
from upshot_contrib.django.tasks.errors import UpshotTaskError

__all__ = ["UpshotResult", "moment", "workers"]

if TYPE_CHECKING:
    _TaskResult = TaskResult[..., Any]
else:
    _TaskResult = TaskResult  # generic for type checkers only

_STATUS: Final = {
    State.QUEUED.value: TaskResultStatus.READY,
    State.RETRY.value: TaskResultStatus.READY,
    State.SUCCESS.value: TaskResultStatus.SUCCESSFUL,
    State.FAILURE.value: TaskResultStatus.FAILED,
    State.REVOKED.value: TaskResultStatus.FAILED,
}
"""All other states are of tasks that run."""

_MOST: Final = 10_000  # workers that are listed: a record only tells how many there were


@final
# Django's is frozen, its stub is not. Two are equal when Django says so.
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # pyright: ignore[reportGeneralTypeIssues]
class UpshotResult(_TaskResult):  # type: ignore[misc]
    """The result of one call, as it was when it was looked at.

    Beyond Django's, it can be waited for: `result.wait(timeout=10)`, or `await result` in a
    coroutine. Whatever asks the result backend may raise `upshot.errors.ServiceError`.

    Attributes:
        progress: what the task said last by `context.progress()`; None if nothing.
    """

    progress: Mapping[str, Any] | None = field(init=False, default=None)

    def __hash__(self) -> int:
        return hash(self.id)  # `asyncio.gather` needs it; the arguments have none

    @classmethod
    def of(cls, call: Call, task_id: str) -> UpshotResult:
        """Return the result of a call that nobody has begun.

        Raises:
            DecodeError: its arguments, which came from outside, are no JSON values.
            TaskResultMismatch: this process has not declared the task.
        """
        task = call.task()
        try:
            return cls(
                task=task,
                id=task_id,
                status=TaskResultStatus.READY,
                enqueued_at=moment(call.enqueued_at),
                started_at=None,
                last_attempted_at=None,
                finished_at=None,
                args=call.args,
                kwargs=call.kwargs,
                backend=task.backend,
                errors=[],
                worker_ids=[],
            )
        except (TypeError, ValueError) as exc:
            raise DecodeError(f"the arguments of a call are JSON values: {exc}") from exc

    def see(self, record: Record, codecs: Codecs) -> Self:
        """Take over what a record of the task tells, and return this result.

        Raises:
            DecodeError, UntrustedContentError: its value cannot be read.
        """
        self.become(_seen(record, codecs))
        return self

    def become(self, attributes: Mapping[str, Any]) -> None:
        """Change these attributes, which nobody else may."""
        for name, value in attributes.items():
            object.__setattr__(self, name, value)

    # -- looking again ----------------------------------------------------------------------------

    def refresh(self) -> None:
        """Look again.

        Raises:
            TaskResultDoesNotExist: it has expired, or was forgotten.
            NotImplementedError: the result backend carries results, and only waiting gets them.
        """
        self._take(self.task.get_backend().get_result(self.id))

    async def arefresh(self) -> None:
        """Like `refresh`."""
        self._take(await self.task.get_backend().aget_result(self.id))

    def _take(self, other: object) -> None:
        self.become({name: getattr(other, name) for name in (*TASK_REFRESH_ATTRS, "progress")})

    # -- waiting ----------------------------------------------------------------------------------

    def wait(self, timeout: float | None = None) -> Self:
        """Wait for the task to end, look again, and return this result.

        It raises nothing if the task has failed: `status` tells, and `errors`.

        Args:
            timeout: seconds; 0 looks once, None waits for ever.

        Raises:
            ResultTimeoutError: it did not end in time; waiting again is fine.
            ResultForgottenError: it was forgotten meanwhile, where the backend can tell.
        """
        origin = self._app.origin
        origin.require_here([self.id])
        try:
            record = origin.client.wait(self.id, timeout=timeout)
        except ResultTimeoutError as exc:
            raise origin.explain_timeout(self.id, timeout, exc.__cause__) from exc.__cause__
        return self.see(record, origin.codecs)

    def __await__(self) -> Generator[Any, None, Self]:
        """Wait like `wait`, while the event loop runs on; `asyncio.timeout(10)` limits it."""
        return self._ended().__await__()

    async def _ended(self) -> Self:
        origin = self._app.origin
        record = await origin.wait_async(self.id, self.task.queue_name, None)
        return self.see(record, origin.codecs)

    # -- ending it --------------------------------------------------------------------------------

    def revoke(self) -> bool:
        """Ask that the task does not run, or that its outcome is not kept; see `refresh`.

        Its status becomes FAILED, with the error `upshot.errors.TaskRevokedError`. A task that
        runs goes on until it asks `context.is_revoked()`, or ends.

        Returns:
            False if it had ended already: then nothing was changed.
        """
        return self._app.AsyncResult(self.id).revoke()

    async def arevoke(self) -> bool:
        """Like `revoke`."""
        return await sync_to_async(self.revoke)()

    def forget(self) -> None:
        """Delete all that is kept of the call; harmless if there is nothing."""
        self._app.results.forget([self.id, call_id(self.id)])

    async def aforget(self) -> None:
        """Like `forget`."""
        await sync_to_async(self.forget)()

    @property
    def _app(self) -> App:
        backend: Any = task_backends[self.backend]
        return cast("App", backend.app)


def moment(seconds: float | None) -> datetime | None:
    """Return seconds since the epoch as Django tells the time: aware only with USE_TZ."""
    found = clock.to_datetime(seconds)
    return found if found is None or settings.USE_TZ else timezone.make_naive(found)


def workers(attempts: int, last: str) -> list[str]:
    """Return as many workers as there were attempts, of which the last one alone is known."""
    return [*[""] * (min(attempts, _MOST) - 1), last] if attempts else []


def _seen(record: Record, codecs: Codecs) -> dict[str, Any]:
    """Return the attributes of a result that a record tells."""
    began, value = moment(record.started_at), None
    if record.state == State.SUCCESS and record.outcome is not None:
        value = decode_value(codecs, record.outcome)
    return {
        "status": _STATUS.get(record.state, TaskResultStatus.RUNNING),
        "started_at": began,
        "last_attempted_at": began,
        "finished_at": moment(record.finished_at),
        "errors": _errors(record, codecs),
        "worker_ids": workers(0 if began is None else record.attempt, record.worker),
        "_return_value": value,
        "progress": None if record.info is None else decode_value(codecs, record.info),
    }


def _errors(record: Record, codecs: Codecs) -> list[TaskError]:
    if record.state == State.SUCCESS:
        return []
    if record.outcome is not None:
        try:
            failure = Failure.from_data(codecs.decode(*record.outcome))
        except UpshotError as exc:  # the task has failed all the same
            return [_error(exc)]
        path = failure.type_name
        return [UpshotTaskError(exception_class_path=path, traceback=failure.traceback)]
    if record.state == State.REVOKED:
        return [_error(TaskRevokedError("the task was revoked"))]
    return []


def _error(exc: UpshotError) -> TaskError:
    path = f"{type(exc).__module__}.{type(exc).__qualname__}"
    return UpshotTaskError(exception_class_path=path, traceback=f"{path}: {exc}\n")
