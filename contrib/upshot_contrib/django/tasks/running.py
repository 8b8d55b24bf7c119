"""What a worker calls: the task's function, as Django has it called, between Django's signals.

`task_started` is sent before the function is called, `task_finished` after it has returned or
raised, by the worker, just before the outcome is stored. A receiver that raises is logged by Django
and changes nothing: a success stays one. A task that never ran, because it was revoked or had
expired, and one whose worker was lost or whose hard time limit was over, has no such signal.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from traceback import format_exception
from typing import TYPE_CHECKING, Any, final

from django.tasks.base import Task, TaskContext, TaskResultStatus
from django.tasks.signals import task_finished, task_started
from django.utils import timezone

from upshot import App
from upshot.context import TaskContext as Running
from upshot.errors import Retry, SoftTimeLimitExceededError
from upshot_contrib.django.tasks.calls import Call
from upshot_contrib.django.tasks.errors import UpshotTaskError
from upshot_contrib.django.tasks.results import UpshotResult, workers
from upshot_contrib.django.tasks.values import plain

__all__ = ["UpshotContext", "runner"]

if TYPE_CHECKING:
    _Task = Task[..., Any]
    _TaskContext = TaskContext[..., Any]
else:
    _Task, _TaskContext = Task, TaskContext  # generic for type checkers only


@final
# Django's is frozen, its stub is not.
@dataclass(frozen=True, slots=True, kw_only=True)  # pyright: ignore[reportGeneralTypeIssues]
class UpshotContext(_TaskContext):  # type: ignore[misc]
    """What a task gets that takes a context: Django's, with progress and revocation.

    Attributes:
        running: upshot's own context of the run.
    """

    running: Running

    def progress(self, current: float, total: float | None = None, **meta: Any) -> None:
        """Say how far the task is; others see it as `result.progress`.

        Args:
            current: units done.
            total: units in all; None if unknown.
            meta: anything else, of plain JSON values.

        Raises:
            EncodeError, PayloadTooLargeError: as `upshot.current_task().progress`.
        """
        self.running.progress(current, total, **meta)

    def is_revoked(self) -> bool:
        """Tell whether somebody called `result.revoke()`; one round trip to the result backend."""
        return self.running.is_revoked()


def runner(app: App, task: _Task) -> Callable[..., Any]:
    """Return what an app registers for a task of Django; it takes upshot's context first."""
    return _of_coroutine(app) if inspect.iscoroutinefunction(task.func) else _of_function(app)


def _of_function(app: App) -> Callable[..., Any]:
    def call(running: Running, /, *args: Any, **kwargs: Any) -> Any:
        run = _Run(app, running, args, kwargs)
        task_started.send_robust(**run.told)
        try:
            value = plain(run.task.func(*run.args, **run.kwargs))
        except BaseException as exc:
            if run.goes_on(exc):
                raise
            run.fail(exc)
            run.keep_call()
            task_finished.send_robust(**run.told)
            raise
        run.succeed(value)
        run.keep_call()
        task_finished.send_robust(**run.told)
        return value

    return call


def _of_coroutine(app: App) -> Callable[..., Any]:
    # As above, with nothing that blocks the loop; receivers may use the database here as well.
    async def call(running: Running, /, *args: Any, **kwargs: Any) -> Any:
        run = _Run(app, running, args, kwargs)
        await task_started.asend_robust(**run.told)
        try:
            value = plain(await run.task.func(*run.args, **run.kwargs))
        except BaseException as exc:
            if run.goes_on(exc):
                raise
            run.fail(_told(exc))
            trace = exc.__traceback__
            await asyncio.to_thread(run.keep_call)
            await task_finished.asend_robust(**run.told)
            exc.__traceback__ = trace  # asgiref has raised it on the receivers' thread
            raise
        run.succeed(value)
        await asyncio.to_thread(run.keep_call)
        await task_finished.asend_robust(**run.told)
        return value

    return call


def _told(exc: BaseException) -> BaseException:
    """Return what a coroutine has failed with: upshot cancels one when its soft limit is over."""
    task = asyncio.current_task()
    if isinstance(exc, asyncio.CancelledError) and task is not None and task.cancelling():
        late = SoftTimeLimitExceededError("the task ran longer than its soft time limit")
        late.__cause__ = exc
        return late
    return exc


@final
class _Run:
    """One attempt, and its result as it changes.

    Args:
        app: whose worker runs it.
        running: upshot's context.
        args, kwargs: as they came.

    Raises:
        DecodeError, TaskResultMismatch: the message is not one of a call.
    """

    def __init__(
        self, app: App, running: Running, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._app = app
        self._running = running
        self._call = call = Call.of_message(running, list(args), kwargs)
        self.result = result = UpshotResult.of(call, running.task_id)
        self.task = task = result.task
        began = timezone.now()
        result.become(
            {
                "status": TaskResultStatus.RUNNING,
                "started_at": began,
                "last_attempted_at": began,
                "worker_ids": workers(running.attempt, running.worker),
            }
        )
        context = [UpshotContext(task_result=result, running=running)] if task.takes_context else []
        self.args: list[Any] = [*context, *result.args]
        self.kwargs = result.kwargs
        self.told: dict[str, Any] = {"sender": type(task.get_backend()), "task_result": result}

    def goes_on(self, exc: BaseException) -> bool:
        """Tell whether this attempt has asked for another one, and will have it."""
        most, before = self._running.max_retries, self._running.retries
        return isinstance(exc, Retry) and (most is None or before < most)

    def fail(self, exc: BaseException) -> None:
        """Note that the function has raised; its traceback is to begin with the function."""
        trace = exc.__traceback__
        if trace is not None and trace.tb_next is not None:
            exc.__traceback__ = trace.tb_next
        if isinstance(exc, Retry):  # of which none is left
            exc = exc.reason or exc.__context__ or exc
        kind = type(exc)
        error = UpshotTaskError(
            exception_class_path=f"{kind.__module__}.{kind.__qualname__}",
            traceback="".join(format_exception(exc)),
        )
        self._end(TaskResultStatus.FAILED, {"errors": [error]})

    def succeed(self, value: Any) -> None:
        """Note what the function has returned."""
        self._end(TaskResultStatus.SUCCESSFUL, {"_return_value": value})

    def keep_call(self) -> None:
        """Keep the call as long as the outcome, no longer."""
        self._call.keep_on(self._app, self.result.id)

    def _end(self, status: TaskResultStatus, outcome: dict[str, Any]) -> None:
        self.result.become({"status": status, "finished_at": timezone.now(), **outcome})
