"""Does small things a little later, for all tasks of a process, on one thread."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
from collections.abc import Callable
from typing import Final, final

from upshot import clock, forking

__all__ = ["Clerk"]

logger = logging.getLogger("upshot.worker")

_FAREWELL: Final = 1.0  # seconds that `close` waits for what is being done


@final
class Clerk:
    """Calls functions at their moments; its thread starts with the first one that is asked for.

    They come one after the other, so none may wait for long: what a service does not do within its
    own timeout is to be asked for again.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None
        self._is_closed = False
        forking.register(self)

    def later(self, moment: float, act: Callable[[], object]) -> None:
        """Call `act` at a moment of the monotonic clock, or soon after; never once closed."""
        with self._changed:
            if self._is_closed:
                return
            heapq.heappush(self._due, (moment, next(self._numbers), act))
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="upshot-clerk", daemon=True)
                self._thread.start()
            self._changed.notify()

    def forget(self, act: Callable[[], object]) -> None:
        """Do not call `act` any more, nor keep what it belongs to; it may be in the midst of it."""
        with self._changed:
            self._due = [each for each in self._due if each[2] != act]
            heapq.heapify(self._due)

    def close(self) -> None:
        """Call nothing any more; idempotent."""
        with self._changed:
            self._is_closed = True
            self._due.clear()
            self._changed.notify()
        thread = self._thread
        if thread is not None and thread.is_alive() and thread is not threading.current_thread():
            thread.join(_FAREWELL)

    def after_fork(self) -> None:
        """Leave what was to be done to the parent, whose tasks asked for it."""
        self._changed = threading.Condition(threading.Lock())
        self._due, self._thread = [], None

    def _run(self) -> None:
        while (act := self._next()) is not None:
            try:
                act()
            except Exception:  # the other tasks' turn comes
                logger.exception("what a task had put off failed")

    def _next(self) -> Callable[[], object] | None:
        """Return what is due, as soon as something is; None once closed."""
        with self._changed:
            while not self._is_closed:
                now = clock.monotonic()
                if self._due and self._due[0][0] <= now:
                    return heapq.heappop(self._due)[2]
                self._changed.wait(self._due[0][0] - now if self._due else None)
            return None
