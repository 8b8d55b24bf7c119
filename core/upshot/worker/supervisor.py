"""The parent of a worker's processes: starts them, replaces the dead, stops them in order.

It runs no task, opens no connection and has one thread, so that nothing a task does reaches it and
a fork is always safe.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.context import ForkContext, ForkProcess
from types import FrameType
from typing import Final, final

from upshot import clock
from upshot.app import App
from upshot.worker import child
from upshot.worker.options import WorkerOptions

__all__ = ["Supervisor"]

logger = logging.getLogger("upshot.worker")

_TICK: Final = 0.25  # seconds between two looks at signals and changed files
_YOUNG: Final = 1.0  # a process that lives shorter is restarted with a growing pause
_LONGEST_PAUSE: Final = 10.0
_STOP_SIGNALS: Final = frozenset({signal.SIGTERM, signal.SIGQUIT})


@final
class Supervisor:
    """Keeps the processes of one worker alive until it is told to stop.

    Args:
        app: whose tasks to run; nothing of it is open yet.
        options: how the worker was started.
        processes: how many children.
        threads: tasks at once in each.
        has_changed: asked every tick; True stops warm, so that the caller can start anew.
    """

    def __init__(
        self,
        app: App,
        options: WorkerOptions,
        *,
        processes: int,
        threads: int,
        has_changed: Callable[[], bool] = lambda: False,
    ) -> None:
        self.changed = False
        self._app = app
        self._options = options
        self._processes = processes
        self._threads = threads
        self._has_changed = has_changed
        self._grace = (
            app.settings.worker_shutdown_timeout if options.grace is None else options.grace
        )
        self._context: ForkContext = multiprocessing.get_context("fork")
        self._children: dict[ForkProcess, float] = {}
        self._stops = 0
        self._is_cold = False
        self._cold_at: float | None = None
        self._pause = 0.0
        self._not_before = 0.0
        self._count = 0

    def run(self) -> int:
        """Supervise until stopped, and return the exit code: 0 clean, 1 if tasks were cut short."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        cut_short = False
        while True:
            self._fill()
            if not self._children and (self._stops or self._options.burst):
                return int(cut_short)
            cut_short |= self._reap(_TICK)
            if not self._stops and self._has_changed():
                self.changed = True
                self._stops = 1
            self._pass_on()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stops += 1

    def _fill(self) -> None:
        """Start what is missing; in burst mode, and when stopping, what has gone stays gone."""
        if self._stops or clock.monotonic() < self._not_before:
            return
        if self._options.burst and self._count >= self._processes:
            return
        while len(self._children) < self._processes:
            self._start()

    def _start(self) -> None:
        self._count += 1
        base = self._options.name or f"{socket.gethostname()}:{os.getpid()}"
        process = self._context.Process(
            target=child.serve,
            args=(self._app, self._options),
            kwargs={
                "threads": self._threads,
                "parent": os.getpid(),
                "name": f"{base}/{self._count}",
            },
            name=f"worker-{self._count}",
        )
        # Until the child has its own handlers it must not run the parent's: hold signals back.
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
        self._children[process] = clock.monotonic()

    def _reap(self, timeout: float) -> bool:
        """Wait for children to end; return True if one was cut short by a stop."""
        gone = wait([process.sentinel for process in self._children], timeout)
        cut_short = False
        for process in [p for p in self._children if p.sentinel in gone]:
            age = clock.monotonic() - self._children.pop(process)
            process.join()
            code = process.exitcode
            if self._stops:
                cut_short |= code != 0
            elif self._options.burst and code == child.UNAVAILABLE:
                cut_short = True
            elif code != 0 or not (self._options.burst or self._expected_end):
                self._count -= int(self._options.burst)
                self._slow_down(age)
                logger.warning("process %s ended with %s; replacing it", process.pid, _cause(code))
        return cut_short

    @property
    def _expected_end(self) -> bool:
        limit = self._options.max_tasks_per_child or self._app.settings.worker_max_tasks_per_child
        return limit is not None

    def _slow_down(self, age: float) -> None:
        """Start the next one at once, unless they die as fast as they start."""
        self._pause = 0.0 if age >= _YOUNG else min(max(0.1, self._pause * 2), _LONGEST_PAUSE)
        self._not_before = clock.monotonic() + self._pause

    def _pass_on(self) -> None:
        """Tell the children to stop: warm at first, cold the second time or after the grace."""
        if not self._stops:
            return
        if self._cold_at is None:
            self._cold_at = clock.monotonic() + self._grace
            logger.info("stopping: running tasks have %g seconds to finish", self._grace)
            self._tell(signal.SIGTERM)
        overdue = clock.monotonic() - self._cold_at
        if self._stops == 1 and overdue < 0:
            return
        if not self._is_cold:
            self._is_cold = True
            self._cold_at = min(self._cold_at, clock.monotonic())
            logger.warning("stopping now: running tasks go back to their queues")
            self._tell(signal.SIGQUIT)
        elif overdue > self._app.settings.operation_timeout:
            self._tell(signal.SIGKILL)

    def _tell(self, number: signal.Signals) -> None:
        for process in self._children:
            if process.pid is not None and process.is_alive():
                os.kill(process.pid, number)


def _cause(code: int | None) -> str:
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return "a task's time limit" if code == child.TIME_LIMIT else f"exit code {code}"
