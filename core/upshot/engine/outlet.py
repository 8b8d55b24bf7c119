"""What a running task yields, on its way to the result store.

The first item is stored at once, and then what has gathered in a short time, all at once: a task
that yields fast floods no server, and no reader waits for long. While the store is away the task
pauses as soon as a batch has gathered.

With each write goes a look at the task's own record. If it is gone, was revoked or belongs to
another worker by now, nobody wants more, and the generator is closed. Whoever forgets a task
deletes its record before the items. So what is stored after that is found here to be unwanted, and
deleted again.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Final, final

from upshot import clock
from upshot.backend import StoredRecord
from upshot.engine.clerk import Clerk
from upshot.engine.recorder import Recorder
from upshot.errors import (
    CorruptRecordError,
    PayloadTooLargeError,
    ResultForgottenError,
    ServiceError,
    StreamTooLongError,
    TaskError,
    TaskRevokedError,
    UpshotError,
)
from upshot.execution import Execution, Finished, Outcome
from upshot.interrupts import shield
from upshot.items import counted
from upshot.reading import BATCH
from upshot.record import Payload, Record
from upshot.states import State

__all__ = ["Outlet"]

_PAUSE: Final = 0.05
"""Seconds between two writes of a task that yields fast: twenty a second, and no reader can tell
an item that comes so late from one that was made so late."""

_RETRY: Final = 1.0  # seconds until the clerk tries again what a store refused
_MOST_BYTES: Final = 2**20  # of items that gather; a batch in one piece on any network


@final
class Outlet:
    """The items of one attempt of one task.

    Args:
        execution: the attempt.
        recorder: brings records to the store.
        clerk: stores what has gathered when the task yields nothing more for a while.
        limit: items that a task may yield.
    """

    def __init__(
        self, execution: Execution, recorder: Recorder, *, clerk: Clerk, limit: int
    ) -> None:
        self._execution = execution
        self._recorder = recorder
        self._clerk = clerk
        self._limit = limit
        self._taking = threading.Lock()
        self._waiting: list[StoredRecord] = []
        self._bytes = 0
        self._taken = 0
        self._next = 0.0
        self._writing = threading.Lock()  # held while items are stored: they come in their order
        self._stored = 0
        self._unwanted: UpshotError | None = None
        self._is_full = False
        self._is_closed = False
        self._trouble: ServiceError | None = None

    # -- called by the running task ---------------------------------------------------------------

    def add(self, item: Payload) -> bool:
        """Take an item, without I/O; True if `flush` is to be called before the next one.

        Raises:
            PayloadTooLargeError: the result store does not take an item of that length.
        """
        if self._taken == self._limit:
            self._is_full = True
            return True
        sealed = self._recorder.sealed_item(self._taken, item, self._execution.message.name)
        with shield(), self._taking:
            self._waiting.append(sealed)
            self._bytes += len(sealed.body)
            self._taken += 1
            is_due = (
                self._unwanted is not None
                or clock.monotonic() >= self._next
                or len(self._waiting) >= BATCH
                or self._bytes >= _MOST_BYTES
            )
            if not is_due and len(self._waiting) == 1:
                self._clerk.later(self._next, self._catch_up)
        return is_due

    def flush(self) -> bool:
        """Store what was taken, however long that takes; False if no more is wanted."""
        try:
            self._recorder.patiently(self._write, "its items are not stored yet")
        except ServiceError as exc:  # the process is ending: another worker begins anew
            self._trouble = exc
        return not (self._trouble or self._unwanted or self._is_full)

    # -- called by its job, and by other threads --------------------------------------------------

    def is_wanted(self) -> bool:
        """Look whether the task still has its record; False also if that cannot be known."""
        try:
            with shield(), self._writing:
                self._look()
        except ServiceError:
            return False
        return self._unwanted is None

    def finish(self, outcome: Outcome) -> Outcome:
        """Store the rest, and return the outcome of the run: it says how many items there are.

        Raises:
            ServiceError: the process is ending and the store still refuses.
        """
        if self._trouble is None:
            self.flush()
        self._is_closed = True
        self._clerk.forget(self._catch_up)
        if self._trouble is not None:
            raise self._trouble
        failed = self._execution.failed
        if self._unwanted is not None:
            if isinstance(self._unwanted, ResultForgottenError):
                # Not before: each item is put elsewhere when it is taken, if it is long.
                self._recorder.patiently(self._recorder.delete_files, "its files are still there")
            return Finished(failed(self._unwanted))
        if self._is_full:
            error = StreamTooLongError(
                f"the task yielded more than {self._limit} items; the setting stream_max_items "
                "says how many it may"
            )
            outcome = Finished(failed(error))
        if not isinstance(outcome, Finished):
            return outcome
        count = self._stored
        if self._execution.attempt > 1:
            there = self._recorder.items_there
            count = self._recorder.patiently(lambda: there(count), "its items are not counted yet")
        return Finished(counted(outcome.record, count))

    def cut_short(self, record: Record) -> Record:
        """Take nothing more, store what can be in one go, and return the end of the task for it."""
        self._is_full = True
        with contextlib.suppress(ServiceError):
            self._write()
        with self._writing:
            self._is_closed = True
        self._clerk.forget(self._catch_up)
        return counted(record, self._stored)

    # -- below the surface ------------------------------------------------------------------------

    def _catch_up(self) -> None:
        """Store what has gathered, on the clerk's thread."""
        try:
            if not self._is_closed:
                self._write()
        except ServiceError:  # the task itself says so when it has to wait
            self._clerk.later(clock.monotonic() + _RETRY, self._catch_up)

    def _write(self) -> None:
        """Store what has gathered, and look whether it is wanted.

        Raises:
            ServiceError: some of it may not be stored.
        """
        with shield(), self._writing:
            with self._taking:
                items = self._waiting[:]
            if items and not (self._unwanted or self._is_closed):
                self._recorder.store_items(items)
                self._stored += len(items)
            with self._taking:
                del self._waiting[: len(items)]
                self._bytes -= sum(len(item.body) for item in items)
                self._next = clock.monotonic() + _PAUSE
            self._look()

    def _look(self) -> None:
        """Find out whether anybody may still want what the task yields.

        Raises:
            ServiceError: that cannot be known now, or what nobody wants is still there.
        """
        if self._unwanted or self._is_closed:
            return
        try:
            known = self._recorder.standing()
        except (CorruptRecordError, PayloadTooLargeError):  # whatever it is, it was not forgotten
            return
        if known is None:
            self._recorder.delete_items(self._stored)
            self._unwanted = ResultForgottenError(
                "the record of the task is gone: it was forgotten, or lost by the result backend"
            )
        elif known.state == State.REVOKED:
            self._unwanted = TaskRevokedError("the task was revoked while it ran")
        elif known.is_terminal or known.token != self._execution.token:
            self._unwanted = TaskError("the task has ended, or runs elsewhere by now")
