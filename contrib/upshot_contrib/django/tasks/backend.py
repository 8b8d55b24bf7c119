"""`upshot_contrib.django.tasks.UpshotBackend`, which TASKS names.

    TASKS = {
        "default": {
            "BACKEND": "upshot_contrib.django.tasks.UpshotBackend",
            "QUEUES": ["default", "mail"],
            "OPTIONS": {"broker": "redis://localhost", "backend": "redis://localhost"},
        }
    }

OPTIONS are settings of upshot, as in `UPSHOT`. Django makes one object of the class per alias and
thread; what they share is in `services`.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

from django.core.checks import CheckMessage
from django.tasks.backends.base import BaseTaskBackend
from django.tasks.base import Task, TaskResult
from django.tasks.exceptions import InvalidTask, TaskResultDoesNotExist
from django.tasks.signals import task_enqueued

from upshot import App
from upshot.errors import InvalidTaskIdError, ServiceError, ServiceUnavailableError, UpshotError
from upshot.message import is_name
from upshot_contrib.django.companions import CALL, call_id
from upshot_contrib.django.tasks.calls import HEADER, Call, check_run_after, is_carried, level
from upshot_contrib.django.tasks.known import KNOWN, UpshotTask
from upshot_contrib.django.tasks.results import UpshotResult
from upshot_contrib.django.tasks.services import app_of

__all__ = ["UpshotBackend"]

if TYPE_CHECKING:
    _Task = Task[..., Any]
    _TaskResult = TaskResult[..., Any]
else:
    _Task, _TaskResult = Task, TaskResult  # generic for type checkers only


@final
class UpshotBackend(BaseTaskBackend):
    """Django's tasks on any broker and any result backend of upshot."""

    task_class = UpshotTask
    supports_defer = True
    supports_async_task = True
    supports_priority = True

    @property
    def supports_get_result(self) -> bool:  # type: ignore[override]  # it depends on OPTIONS
        """False where results are carried to who enqueued the task: `rpc://`, `amqp://`."""
        return not is_carried(self.app)

    @property
    def app(self) -> App:
        """The app that sends and runs the tasks of this alias; several may share one."""
        return app_of(self.alias)

    def validate_task(self, task: _Task) -> None:
        """As Django does.

        Raises:
            InvalidTask: its queue or its function has a name that no message can hold, or it is to
                run at no moment of these 100 years.
        """
        check_run_after(task.run_after)
        super().validate_task(task)
        for what, name in (("queue", task.queue_name), ("function", task.module_path)):
            if not is_name(name):
                raise InvalidTask(f"The name of a {what} is 1 to 255 printable characters.")

    def enqueue(  # type: ignore[override]  # a result of ours is one of Django's
        self, task: _Task, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> UpshotResult:
        """Send a task to its queue and return its result, which is READY.

        Raises:
            InvalidTask: as `validate_task`.
            TypeError: an argument is no JSON value.
            EncodeError: the arguments are nested deeper than 200 levels.
            PayloadTooLargeError: the arguments are more than broker or result backend take.
            ServiceError: broker or result backend could not take it.
        """
        self.validate_task(task)
        KNOWN.add(task)  # a task of another alias is known here from now on
        call = Call.of(task, args, kwargs)
        result = UpshotResult.of(call, uuid.uuid4().hex)
        self._send(call, result)
        task_enqueued.send_robust(type(self), task_result=result)
        return result

    def _send(self, call: Call, result: UpshotResult) -> None:
        app = self.app
        call.keep(app, result.id)
        try:
            handle = app.send_task(
                call.name,
                result.args,
                result.kwargs,
                task_id=result.id,
                queue=call.queue,
                priority=level(call.priority),
                eta=call.eta,
                headers={HEADER: call.header()},
                ignore_result=False,
            )
        except ServiceUnavailableError:
            raise  # it may have been sent
        except UpshotError:
            with contextlib.suppress(ServiceError):  # the first error is the one to tell
                app.results.forget([call_id(result.id)])
            raise
        handle.mark_released()  # what is read is not this handle

    def get_result(self, result_id: str) -> UpshotResult:
        """Return the result with that id, as it is now; two records are read in one batch.

        Raises:
            TaskResultDoesNotExist: there is none, or it has expired.
            TaskResultMismatch: it is of a task that this process has not declared.
            NotImplementedError: results are carried, see `supports_get_result`.
            CorruptRecordError, DecodeError: what is kept under that id cannot be read.
            ServiceError: the result backend could not be asked.
        """
        app = self.app
        if is_carried(app):
            raise NotImplementedError(
                f"{app.backend_url} sends results to the process that enqueued the task: "
                "wait there for the result that `enqueue` returned"
            )
        try:
            record, kept = app.results.load_many([result_id, call_id(result_id)])
        except InvalidTaskIdError:
            raise TaskResultDoesNotExist(result_id) from None
        if isinstance(record, UpshotError):
            raise record
        if isinstance(kept, UpshotError):
            raise kept
        is_unknown = record is None and app.settings.task_track_queued
        if is_unknown or kept is None or kept.state != CALL:
            raise TaskResultDoesNotExist(result_id)
        result = UpshotResult.of(Call.of_record(kept, app.codecs), result_id)
        return result if record is None else result.see(record, app.codecs)

    def check(self, **kwargs: Any) -> list[CheckMessage]:
        """Return what is wrong with this alias, before anything is sent."""
        from upshot_contrib.django.tasks.checks import check_alias  # with Django set up

        return check_alias(self)
