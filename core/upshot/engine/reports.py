"""What a running task says of its progress, as often as its result store is to hear it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import final

from upshot import clock, forking
from upshot.backend import StoredRecord
from upshot.engine.clerk import Clerk
from upshot.interrupts import shield

__all__ = ["Reports"]


@final
class Reports:
    """The reports of one task: the first at once, then the latest after each interval.

    None is stored once it is closed. The record that comes then has the last report with it.

    Args:
        store: stores one; raises nothing that a service does.
        clerk: stores the last of a burst, whose task may say nothing more for long.
        interval: seconds between two that are stored; 0 stores each.
    """

    def __init__(
        self, store: Callable[[StoredRecord], object], *, clerk: Clerk, interval: float
    ) -> None:
        self._store = store
        self._clerk = clerk
        self._interval = interval
        self._lock = threading.Lock()
        self._latest: StoredRecord | None = None
        self._next = 0.0
        self._is_storing = False  # one at a time, or an older report could come after a newer one
        self._is_closed = False
        forking.register(self)

    def after_fork(self) -> None:
        """Make a new lock: the clerk may have held it. A child of the task may report, too."""
        self._lock = threading.Lock()
        self._latest, self._is_storing = None, False

    def put(self, report: StoredRecord) -> None:
        """Take a report, and store it if its time has come."""
        with shield():  # a time limit must not strike where it is half taken
            with self._lock:
                is_due = not (self._latest or self._is_storing) and clock.monotonic() >= self._next
                if not is_due:
                    if self._latest is None:
                        self._clerk.later(self._next, self._catch_up)
                    self._latest = report
                    return
                self._is_storing = True
            self._send(report)

    def close(self) -> None:
        """Store nothing any more."""
        with shield(), self._lock:
            self._is_closed = True
            self._latest = None
            self._clerk.forget(self._catch_up)

    def _catch_up(self) -> None:
        """Store the last report of a burst, on the clerk's thread."""
        with self._lock:
            if self._latest is None or self._is_closed:
                return
            if self._is_storing:
                self._clerk.later(clock.monotonic() + self._interval, self._catch_up)
                return
            report, self._latest = self._latest, None
            self._is_storing = True
        self._send(report)

    def _send(self, report: StoredRecord) -> None:
        try:
            self._store(report)
        finally:
            with self._lock:
                self._is_storing = False
                self._next = clock.monotonic() + self._interval
