"""The life of one delivery: decide, begin, run, store, settle.

The order is the guarantee. A message is acknowledged only after its outcome is stored; a success
is never turned into a failure because a store was down; storing STARTED tells whether the task may
run at all. Whatever dies on the way, the message is delivered again and the record decides.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any, final

from upshot import clock
from upshot.broker import Action, Delivery, Settlement
from upshot.engine.host import Host
from upshot.engine.limits import soft_limit
from upshot.envelope import unfinished
from upshot.errors import (
    DecodeError,
    PayloadTooLargeError,
    ServiceClosedError,
    ServiceError,
    TaskError,
    TaskExpiredError,
    TimeLimitExceededError,
    UnknownTaskError,
    WorkerLostError,
)
from upshot.execution import Again, Execution, Outcome
from upshot.message import Message
from upshot.record import Record, printable
from upshot.sending import queued
from upshot.states import State

__all__ = ["Job"]

logger = logging.getLogger("upshot.task")

_FIRST_PAUSE = 0.1  # seconds between two attempts to store an outcome; doubles up to the longest
_LONGEST_PAUSE = 5.0


@final
class Job:
    """One delivery on its way through this process.

    Args:
        host: the app's side.
        delivery: the leased message.
        worker: this worker's name.
        stopping: set when the process is about to end and patience with a service is over.
    """

    def __init__(
        self, host: Host, delivery: Delivery, *, worker: str, stopping: threading.Event
    ) -> None:
        self.delivery = delivery
        self.deadline: float | None = None
        """When the hard limit strikes, on the monotonic clock; None if there is none."""
        self._host = host
        self._worker = worker
        self._stopping = stopping
        self._execution: Execution | None = None
        self._settled = threading.Lock()

    def run(self, run_coroutine: Callable[[Coroutine[Any, Any, Any]], Any] = asyncio.run) -> None:
        """Do all that this delivery asks for. Raises nothing a task or a service raised."""
        try:
            message = Message.decode(self.delivery.body)
        except DecodeError as exc:
            logger.error("a message in queue %r cannot be read: %s", self.delivery.queue, exc)
            self._settle(Action.BURY, reason=str(exc))
            return
        execution = self._execution = Execution(
            message,
            spec=self._host.tasks.get(message.name),
            attempt=message.attempt + self.delivery.deliveries - 1,
            worker=self._worker,
            token=self.delivery.token,
            codecs=self._host.codecs,
        )
        try:
            self._run(execution, run_coroutine)
        except ServiceError as exc:
            # The message stays leased, so nothing is lost: somebody gets it when the lease ends.
            logger.error("task %s is given back: %s", printable(message.task_id), exc)
            self.release()
        except Exception as exc:  # a defect of ours: running it again would end the same way
            logger.exception("task %s cannot be brought to its end", printable(message.task_id))
            if not execution.ignore_result:
                self._store(execution, execution.failed(exc))
            self._settle(Action.ACK)

    def _run(
        self, execution: Execution, run_coroutine: Callable[[Coroutine[Any, Any, Any]], Any]
    ) -> None:
        refusal = self._refusal(execution)
        if refusal is not None:
            if not execution.ignore_result:
                known = self._host.client.load(execution.message.task_id)
                if known is not None:
                    execution.resume(known)
                self._store(execution, execution.failed(refusal))
            logger.error("task %s not run: %s", _label(execution), refusal)
            self._settle(Action.ACK)
            return
        started = execution.started()
        if not execution.ignore_result and not self._begin(execution, started):
            logger.warning(
                "task %s not run: it has ended, was revoked, or runs elsewhere", _label(execution)
            )
            self._settle(Action.ACK)
            return
        began = clock.monotonic()
        limit = execution.time_limit
        self.deadline = None if limit is None else began + limit
        outcome = execution.run(self, soft_limit=soft_limit, run_coroutine=run_coroutine)
        self.deadline = None
        self._finish(execution, outcome, clock.monotonic() - began)

    def _refusal(self, execution: Execution) -> TaskError | None:
        """Return why the task must not run, None if it may."""
        message, host = execution.message, self._host
        if message.expires is not None and clock.now() > message.expires:
            return TaskExpiredError(f"{message.name} expired before it was started")
        limit = host.settings.task_max_deliveries
        if self.delivery.deliveries > limit:
            return WorkerLostError(f"{message.name} ended {limit} workers that ran it")
        if execution.spec is None:
            known = ", ".join(sorted(host.tasks)) or "none"
            return UnknownTaskError(
                f"this worker has no task {printable(message.name)!r}; it has: {known}"
            )
        return None

    def _begin(self, execution: Execution, started: Record) -> bool:
        """Store STARTED; False if somebody else's record stands in the way."""
        if self._put(execution, started):
            return True
        known = self._host.client.load(started.task_id)
        # Our own record refuses us if its first answer was lost on the way.
        return known is not None and not known.is_terminal and known.token == started.token

    def _finish(self, execution: Execution, outcome: Outcome, seconds: float) -> None:
        record, message = outcome.record, execution.message
        applied = execution.ignore_result or self._store(execution, record)
        if isinstance(outcome, Again) and applied:
            self._settle(Action.REPLACE, message=outcome.message)
        else:
            self._settle(Action.ACK)
        state = record.state if applied else f"{record.state} not stored: it had ended already"
        level = logging.INFO if record.state == State.SUCCESS else logging.WARNING
        logger.log(
            level,
            "task %s %s in %.3f s%s",
            _label(execution),
            state,
            seconds,
            "" if execution.attempt == 1 else f" (attempt {execution.attempt})",
            extra={"task_id": message.task_id, "task_name": message.name, "state": record.state},
        )

    def _store(self, execution: Execution, record: Record) -> bool:
        """Store `record`, as long as it takes; a record that is too large becomes a failure.

        Raises:
            ServiceError: the process is stopping and the service still refuses.
        """
        pause = _FIRST_PAUSE
        while True:
            try:
                return self._put(execution, record)
            except PayloadTooLargeError as exc:
                record = execution.failed(exc)
            except ServiceError as exc:
                if self._stopping.is_set() or isinstance(exc, ServiceClosedError):
                    raise
                logger.warning("task %s: not stored yet: %s", _label(execution), exc)
                self._stopping.wait(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)

    def _put(self, execution: Execution, record: Record) -> bool:
        """Store `record` once, or send it where the message says; tell whether it applied."""
        return self._host.client.store(
            record,
            expires=self._expires(execution, record),
            reply_to=execution.message.reply_to,
        )

    def _expires(self, execution: Execution, record: Record) -> float | None:
        sent = execution.message.result_expires
        expires = self._host.settings.result_expires if sent == -1.0 else sent
        return expires if record.is_terminal else unfinished(expires)

    def _settle(self, action: Action, *, message: Message | None = None, reason: str = "") -> None:
        """Settle the delivery, once; a service that cannot be reached is told by the lease."""
        if not self._settled.acquire(blocking=False):
            return
        settlement = Settlement(
            delivery=self.delivery,
            action=action,
            message=None if message is None else queued(message),
            reason=reason,
        )
        try:
            self._host.broker.call(lambda broker, seconds: broker.settle([settlement], seconds))
        except ServiceError as exc:
            logger.warning("a message of queue %r: %s", self.delivery.queue, exc)

    # -- called by the running task, and by other threads of the process --------------------------

    def progress(self, info: Mapping[str, Any]) -> None:
        """Store a progress report; a report after the end has no effect."""
        execution = self._execution
        if execution is not None and not execution.ignore_result:
            record = execution.progress(info)
            self._put(execution, record)

    def is_revoked(self) -> bool:
        """Look whether the task was revoked meanwhile; never known where results are carried."""
        record = (
            self._host.client.load(self._execution.message.task_id) if self._execution else None
        )
        return record is not None and record.state == State.REVOKED

    @property
    def is_settled(self) -> bool:
        """Whether the broker has been told what becomes of the message, or is being told."""
        return self._settled.locked()

    def release(self) -> None:
        """Give the message back, so that another worker runs the task at once."""
        execution = self._execution
        if execution is None:
            self._settle(Action.RELEASE)
            return
        # This attempt may be on record as started, and is nobody's any more: the next worker
        # begins one of its own. As a new message it does not count as a death of a worker.
        again = replace(execution.message, attempt=execution.attempt + 1)
        self._settle(Action.REPLACE, message=again)

    def end_by_time_limit(self) -> None:
        """Record that the hard limit has passed; what the function returns later is void."""
        execution = self._execution
        if execution is None:
            return
        self.deadline = None
        seconds = execution.time_limit
        error = TimeLimitExceededError(f"the task ran longer than {seconds} seconds")
        try:
            if not execution.ignore_result:
                self._store(execution, execution.failed(error))
        except ServiceError as exc:
            logger.error("task %s: %s", _label(execution), exc)
        else:
            self._settle(Action.ACK)
        logger.warning("task %s FAILURE: %s", _label(execution), error)


def _label(execution: Execution) -> str:
    message = execution.message
    return f"{printable(message.task_id)} {printable(message.name)}"
