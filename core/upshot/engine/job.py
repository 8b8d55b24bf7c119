"""The life of one delivery: decide, begin, run, store, settle.

The order is the guarantee. A message is acknowledged only after its outcome is stored; a success
is never turned into a failure because a store was down; storing STARTED tells whether the task may
run at all. Whatever dies on the way, the message is delivered again and the record decides.

While the result store is away or refuses, for whatever reason, the message stays leased. A task
that has run waits without a limit for its outcome to be stored, until the worker is stopped and its
`worker_shutdown_timeout` is over. A task that has not begun waits for `worker_lease` seconds, or
until the worker is told to stop: another worker may reach the store. Then the message goes back to
its queue, and the log says so.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, final

from upshot import clock
from upshot.broker import Action, Delivery, Settlement
from upshot.engine.burying import bury
from upshot.engine.host import Host
from upshot.engine.intake import Intake
from upshot.engine.limits import soft_limit
from upshot.engine.recorder import Recorder
from upshot.engine.refusal import lost, refusal
from upshot.engine.reporting import Reporting
from upshot.engine.settling import Settling, shown
from upshot.engine.telling import tell_end
from upshot.errors import (
    DecodeError,
    PayloadTooLargeError,
    ServiceError,
    TaskError,
    TaskExpiredError,
    TimeLimitExceededError,
    WorkerLostError,
)
from upshot.execution import Again, Execution, Outcome, in_hand
from upshot.message import Message
from upshot.record import Record, printable
from upshot.sealing import open_message
from upshot.states import MAX_ATTEMPT, State

__all__ = ["Job"]

logger = logging.getLogger("upshot.task")


@final
class Job:
    """One delivery on its way through this process.

    Args:
        host: the app's side.
        delivery: the leased message.
        worker: this worker's name.
        stopping: set when nothing more is to be begun.
        cold: set when the process is about to end and patience with a service is over.
        intake: where messages come from, told what has become of this one; None for a broker
            that is told directly.
        limited: called when `deadline` has changed.
        after_body: called as soon as the task's function has returned or raised.
    """

    def __init__(
        self,
        host: Host,
        delivery: Delivery,
        *,
        worker: str,
        stopping: threading.Event,
        cold: threading.Event,
        intake: Intake | None = None,
        limited: Callable[[], object] = lambda: None,
        after_body: Callable[[], object] = lambda: None,
    ) -> None:
        self.delivery = delivery
        self.deadline: float | None = None
        """When the hard limit strikes, on the monotonic clock; None if there is none."""
        self.trouble: ServiceError | None = None
        """Why the message was given back, unless that was asked for; None if it was not."""
        self._host = host
        self._worker = worker
        self._stopping = stopping
        self._cold = cold
        self._intake = intake
        self._limited = limited
        self._after_body = after_body
        self._execution: Execution | None = None
        self._recorder: Recorder | None = None
        self._reporting: Reporting | None = None
        self._may_be_started = False
        self.settling = Settling(host, delivery)
        """The end of the delivery, for other threads to wait for."""

    def run(self, run_coroutine: Callable[[Coroutine[Any, Any, Any]], Any] = asyncio.run) -> None:
        """Do all that this delivery asks for. Raises nothing a task or a service raised."""
        limit = self._host.settings.task_max_deliveries
        if self.delivery.deliveries > 2 * limit + 1:  # even to say so has ended workers
            self._bury(lost("it", limit))
            return
        try:
            message = open_message(self.delivery.body, self.delivery.queue, self._host.sealing)
        except DecodeError as exc:
            self._bury(exc)
            return
        except MemoryError:
            self._bury(DecodeError("the message is too large for this worker's memory"))
            return
        execution = self._execution = Execution(
            message,
            spec=self._host.tasks.get(message.name),
            attempt=min(message.attempt + self.delivery.deliveries - 1, MAX_ATTEMPT),
            worker=self._worker,
            token=self.delivery.token,
            codecs=self._host.codecs,
            around_task=self._host.around_task,
            observers=self._host.observers,
        )
        in_hand.set(execution)
        recorder = self._recorder = self._record_for(execution)
        reporting = self._reporting = Reporting(self._host, execution, recorder)
        try:
            try:
                self._run(execution, recorder, reporting, run_coroutine)
            except ServiceError:
                raise
            except Exception as exc:  # a defect of ours: running it again would end the same way
                logger.exception("task %s cannot be brought to its end", _label(execution))
                self._fail(execution, recorder, exc)
        except ServiceError as exc:
            self.trouble = exc
            self.release(str(exc))
        except Exception as flaw:  # the same defect, most likely: no record of it can be made
            logger.exception("task %s is put away", _label(execution))
            self.settling.settle(Action.BURY, reason=f"{type(flaw).__name__}: {flaw}")
        finally:
            in_hand.set(None)

    def _record_for(self, execution: Execution) -> Recorder:
        message = execution.message
        sent = message.result_expires
        return Recorder(
            self._host.client,
            task_id=message.task_id,
            label=_label(execution),
            reply_to=message.reply_to,
            expires=self._host.settings.result_expires if sent == -1.0 else sent,
            time_limit=execution.time_limit,
            patience=self._host.settings.worker_lease,
            stopping=self._stopping,
            cold=self._cold,
        )

    def _run(
        self,
        execution: Execution,
        recorder: Recorder,
        reporting: Reporting,
        run_coroutine: Callable[[Coroutine[Any, Any, Any]], Any],
    ) -> None:
        is_lethal = self._is_lethal(execution, recorder)
        refused = refusal(self._host, execution.message, is_lethal=is_lethal)
        if refused is not None:
            self._refuse(execution, recorder, refused)
            return
        if execution.ignore_result and reporting.is_revoked():  # otherwise storing STARTED tells
            logger.warning("task %s not run: it was revoked", _label(execution))
            self.settling.settle(Action.ACK)
            return
        self._may_be_started = True
        started = execution.started()
        if not execution.ignore_result and not recorder.begin(started):
            logger.warning(
                "task %s not run: it has ended, was revoked, or runs elsewhere", _label(execution)
            )
            self.settling.settle(Action.ACK)
            return
        if self.delivery.deliveries > 1:
            logger.warning(
                "task %s runs again (attempt %d): the worker that had it before was lost",
                _label(execution),
                execution.attempt,
            )
        began = clock.monotonic()
        limit = execution.time_limit
        self._limit(None if limit is None else began + limit)
        try:
            outcome = execution.run(reporting, soft_limit=soft_limit, run_coroutine=run_coroutine)
            self._after_body()
        finally:
            self._limit(None)
        outcome = reporting.finish(outcome)
        self._finish(execution, recorder, outcome, clock.monotonic() - began)

    def _is_lethal(self, execution: Execution, recorder: Recorder) -> bool:
        """Tell whether the task has taken as many workers down with it as may be.

        A delivery counts although its answer never reached a worker: its server was frozen, or the
        connection cut. So the record decides, if it tells that the delivery before did not begin.
        Where records are carried to the submitter, none can be read here: the count decides.
        """
        if self.delivery.deliveries <= self._host.settings.task_max_deliveries:
            return False
        is_carried = bool(execution.message.reply_to)
        if execution.ignore_result or is_carried or not self._host.client.capabilities.reread:
            return True
        known = recorder.recall()
        before = execution.attempt - 1
        return known is not None and known.state == State.STARTED and known.attempt >= before

    def _limit(self, deadline: float | None) -> None:
        if deadline != self.deadline:
            self.deadline = deadline
            self._limited()

    def _refuse(self, execution: Execution, recorder: Recorder, why: TaskError) -> None:
        """Let a task end without running it."""
        logger.error("task %s not run: %s", _label(execution), why)
        if execution.ignore_result:
            # No record would tell of it; that it came too late is what its sender asked for.
            expired = type(why) is TaskExpiredError
            tell_end(self._host, execution, execution.failed(why), why)
            self.settling.settle(Action.ACK if expired else Action.BURY, reason=str(why))
            return
        known = recorder.recall()
        if known is not None:
            execution.resume(known)
        record = execution.failed(why)
        if self._store(execution, recorder.refuse, record):
            tell_end(self._host, execution, record, why)
        self.settling.settle(Action.ACK)

    def _finish(
        self, execution: Execution, recorder: Recorder, outcome: Outcome, seconds: float
    ) -> None:
        record, message = outcome.record, execution.message
        if isinstance(outcome, Again):
            applied = execution.ignore_result or self._store(execution, recorder.end, record)
            again = outcome.message if applied else None
            self._settle(Action.REPLACE if applied else Action.ACK, again)
        else:
            applied = self._end(execution, recorder, record)
        if applied:
            tell_end(self._host, execution, record)
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

    def _end(self, execution: Execution, recorder: Recorder, record: Record) -> bool:
        """Store how the task has ended, then let its message go: in one step where that can be."""
        in_doubt = False
        intake = self._intake
        if intake is not None and intake.joins and not execution.ignore_result:
            try:
                applied = self._end_at_once(intake, recorder, record)
            except Exception:  # whatever it was, the next message's too: now with all patience
                applied, in_doubt = None, True
            if applied is not None:
                return applied
        end = partial(recorder.end, in_doubt=in_doubt)
        applied = execution.ignore_result or self._store(execution, end, record)
        self._settle(Action.ACK)
        return applied

    def _end_at_once(self, intake: Intake, recorder: Recorder, record: Record) -> bool | None:
        """Return whether the outcome applied; None if somebody else lets the message go.

        Raises:
            PayloadTooLargeError: it is too large to be stored; nothing was done.
            ServiceError: nobody knows whether it was stored.
        """
        sealed = recorder.sealed(record)
        settlement = self.settling.claim(Action.ACK)
        if settlement is None:  # a time limit, or a stop, has settled it
            return None
        try:
            applied, ours = intake.end(settlement, sealed)
        except BaseException:
            self.settling.unclaim()
            raise
        self.settling.told("" if ours else "it is no longer this worker's")
        return applied or recorder.has_stored(record)

    def _settle(self, action: Action, message: Message | None = None) -> None:
        """Settle, by the way that brings the next message along if there is one."""
        tell = None if self._intake is None else self._intake.settle
        self.settling.settle(action, message=message, tell=tell)

    def _fail(self, execution: Execution, recorder: Recorder, exc: Exception) -> None:
        """Let the task fail by a defect of ours."""
        if not execution.ignore_result:
            # Not as patient as with an outcome: storing may be what has brought us here.
            self._store(execution, recorder.refuse, execution.failed(exc))
        tell_end(self._host, execution, execution.failed(exc), exc)
        self.settling.settle(Action.ACK)

    def _store(self, execution: Execution, store: Callable[[Record], bool], record: Record) -> bool:
        """Store the end of a task; one that is too large becomes a failure.

        Raises:
            ServiceError: the store refuses for longer than `store` has patience.
        """
        try:
            return store(record)
        except PayloadTooLargeError as exc:
            # Without the progress that it reported, which may be what is too large.
            return store(execution.failed(exc)._replace(info=None))

    def _bury(self, error: DecodeError | WorkerLostError) -> None:
        bury(
            self._host,
            self.delivery,
            self.settling,
            error,
            worker=self._worker,
            stopping=self._stopping,
            cold=self._cold,
        )

    # -- called by the running task, and by other threads of the process --------------------------

    def release(self, why: str) -> None:
        """Give the message back, so that another worker runs the task at once.

        Args:
            why: for the log.
        """
        action, message, note = self._substitute(why)
        self.settling.settle(action, message=message, note=note)

    def take_back(self, why: str) -> Settlement | None:
        """Return what gives the message back, for the caller to settle; None if it is settled."""
        action, message, note = self._substitute(why)
        return self.settling.claim(action, message=message, note=note)

    def _substitute(self, why: str) -> tuple[Action, Message | None, str]:
        execution = self._execution
        if execution is None:
            return Action.RELEASE, None, ""
        note = f"task {_label(execution)} is given back: {why}"
        if not self._may_be_started:
            return Action.RELEASE, None, note
        # This attempt may be on record as started, and is nobody's any more: the next worker
        # begins one of its own. As a new message it does not count as a death of a worker.
        attempt = min(execution.attempt + 1, MAX_ATTEMPT)
        return Action.REPLACE, execution.message._replace(attempt=attempt), note

    def end_by_time_limit(self) -> None:
        """Record that the hard limit has passed; what the function returns later is void.

        Returns once that is stored, or the process has to end without.
        """
        execution, recorder, reporting = self._execution, self._recorder, self._reporting
        if execution is None or recorder is None or reporting is None:
            return
        in_hand.set(execution)  # in the thread of the limit, which ends soon
        seconds = execution.time_limit
        error = TimeLimitExceededError(f"the task ran longer than {seconds} seconds")
        applied, record = True, execution.failed(error)
        try:
            if not execution.ignore_result:
                record = reporting.cut_short(record)
                applied = self._store(execution, recorder.end, record)
            self.settling.settle(Action.ACK)
        except ServiceError as exc:
            logger.error("task %s: %s", _label(execution), exc)
            return
        if applied:  # otherwise it ended just before
            tell_end(self._host, execution, record, error)
            logger.warning("task %s FAILURE: %s", _label(execution), error)


def _label(execution: Execution) -> str:
    message = execution.message
    return f"{printable(message.task_id)} {shown(message.name)}"
