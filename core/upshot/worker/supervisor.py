"""The parent of a worker's processes: starts them, replaces the dead, stops them in order.

It runs no task, opens no connection and has one thread, so that nothing a task does reaches it and
a fork is always safe.
"""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import ForkContext, ForkProcess
from types import FrameType
from typing import Final, final

from upshot import clock
from upshot.app import App
from upshot.observing import tell
from upshot.worker import child
from upshot.worker.manager import ServiceManager
from upshot.worker.options import WorkerOptions
from upshot.worker.signs import Ending, Signs

__all__ = ["STOPS", "Supervisor"]

logger = logging.getLogger("upshot.worker")

_TICK: Final = 0.25  # seconds between two looks at signals and changed files
_YOUNG: Final = 1.0  # a process that lives shorter is restarted with a growing pause
_LONGEST_PAUSE: Final = 0.5  # seconds; a fork costs far less, and healthy tasks wait for it
_STOPPING_TICK: Final = 0.05  # seconds between two looks while processes are to end
_FAREWELL: Final = 0.7  # seconds for a cold stop; with what comes around it, a second
_UNHEARD: Final = 2.0  # seconds that a process may take to end a task at its hard limit
STOPS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
"""The signals that stop a worker; the last one at once."""

_HELD_BACK: Final = frozenset({signal.SIGTERM, signal.SIGQUIT})
_CUT_SHORT: Final = frozenset(Ending) - {Ending.DONE, Ending.TIME_LIMIT}
_CANNOT_START_PAUSE: Final = 5.0  # seconds; each attempt costs this process four descriptors
_LAST_IN_BURST: Final = frozenset({Ending.DONE, Ending.UNAVAILABLE})
_CAUSES: Final = {
    Ending.TIME_LIMIT: "a task's time limit",
    Ending.DAMAGED: "descriptors that a task closed",
}


@dataclass
class _Child:
    """One process, and what is known of it.

    Attributes:
        process: as it was started.
        signs: what it says itself.
        born: on the monotonic clock.
        overdue: for how long, in seconds of this process's life, a hard limit has passed in it.
        beats: how many signs of life it had given when it was last looked at.
        silent: for how long, in seconds of this process's life, it has given none.
        is_killed: whether that was too long.
        succeeds: it stands in for one that consumed, and ended as it was told to.
    """

    process: ForkProcess
    signs: Signs
    born: float
    overdue: float = 0.0
    beats: int = 0
    silent: float = 0.0
    is_killed: bool = False
    succeeds: bool = False

    @property
    def consumes(self) -> bool:
        """Whether messages come to it, or did to whom it succeeds until a moment ago."""
        return self.succeeds or self.signs.consumes

    @property
    def pid(self) -> int:
        """The id of the process, which was started."""
        return self.process.pid or 0


@final
class Supervisor:
    """Keeps the processes of one worker alive until it is told to stop.

    Args:
        app: whose tasks to run; nothing of it is open yet.
        options: how the worker was started.
        processes: how many children.
        threads: tasks at once in each.
        has_changed: asked every tick; True stops warm, so that the caller can start anew.
        manager: told how it goes; None if there is nobody.
    """

    def __init__(
        self,
        app: App,
        options: WorkerOptions,
        *,
        processes: int,
        threads: int,
        has_changed: Callable[[], bool] = lambda: False,
        manager: ServiceManager | None = None,
    ) -> None:
        self.changed = False
        self._app = app
        self._options = options
        self._processes = processes
        self._threads = threads
        self._has_changed = has_changed
        self._manager = manager or ServiceManager({})
        self._grace = (
            app.settings.worker_shutdown_timeout if options.grace is None else options.grace
        )
        self._context: ForkContext = multiprocessing.get_context("fork")
        self._children: list[_Child] = []
        self._looked = clock.monotonic()
        self._lifeless = 0.0
        self._vacant = 0  # places of processes that consumed, and are to have successors
        self._stops = 0
        self._cold_asked = False
        self._is_cold = False
        self._cold_at: float | None = None
        self._pause = 0.0
        self._not_before = 0.0
        self._count = 0

    def run(self) -> int:
        """Supervise until stopped, and return the exit code: 0 clean, 1 if tasks were cut short."""
        for number in STOPS:
            if signal.getsignal(number) is not signal.SIG_IGN or number != signal.SIGHUP:
                signal.signal(number, self._on_signal)  # nohup's SIGHUP stays ignored
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # or nobody tells how a process ended
        # What was imported until now stays. A collection that looked at it would write to each of
        # its pages, and so give every process a copy of what they all share.
        gc.collect()
        gc.freeze()
        cut_short = False
        while True:
            self._fill()
            if not self._children and (self._stops or self._options.burst):
                return int(cut_short)
            cut_short |= self._reap(_STOPPING_TICK if self._stops else _TICK)
            self._strike()
            if not self._stops and self._has_changed():
                self.changed = True
                self._stops = 1
            self._pass_on()
            self._report()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.changed:  # the stop for a changed file becomes one for good, as warm as it was
            self.changed, self._stops = False, 0
        self._stops += 1
        self._cold_asked |= number == signal.SIGQUIT or self._stops > 1

    def _fill(self) -> None:
        """Start what is missing; in burst mode, and when stopping, what has gone stays gone."""
        if self._stops or clock.monotonic() < self._not_before:
            return
        if self._options.burst and self._count >= self._processes:
            return
        while len(self._children) < self._processes:
            try:
                self._start()
            except OSError as exc:  # too many processes, or no memory: it may be a task's doing
                self._count -= 1
                self._vacant = 0
                self._not_before = clock.monotonic() + _CANNOT_START_PAUSE
                logger.error("no process can be started: %s", exc)
                return

    def _start(self) -> None:
        self._count += 1
        base = self._options.name or f"{socket.gethostname()}:{os.getpid()}"
        signs = Signs()
        process = self._context.Process(
            target=child.serve,
            args=(self._app, self._options),
            kwargs={
                "threads": self._threads,
                "parent": os.getpid(),
                "name": f"{base}/{self._count}",
                "grace": self._grace,
                "signs": signs,
            },
            name=f"worker-{self._count}",
        )
        # Until the child has its own handlers it must not run the parent's: hold signals back.
        signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
        try:
            process.start()
        except OSError:
            signs.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD_BACK)
        succeeds, self._vacant = self._vacant > 0, max(0, self._vacant - 1)
        born = clock.monotonic()
        self._children.append(_Child(process, signs, born=born, succeeds=succeeds))

    def _reap(self, timeout: float) -> bool:
        """Wait for children to end; return True if the tasks of one were cut short."""
        wait([each.process.sentinel for each in self._children], timeout)
        # Each is asked: what a task forked holds the sentinel open beyond its process's end.
        gone = [each for each in self._children if each.process.exitcode is not None]
        cut_short = False
        for each in gone:
            self._children.remove(each)
            pid, ending, code = each.pid, each.signs.ending, each.process.exitcode
            consumed = each.signs.consumes
            if consumed:  # it may have ended before it was looked at for the first time
                self._lifeless = 0.0
            each.process.close()
            each.signs.close()
            self._tell_observers(pid)
            cut_short |= ending in _CUT_SHORT and bool(self._stops or self._options.burst)
            if self._stops or (self._options.burst and ending in _LAST_IN_BURST):
                continue
            self._vacant += int(consumed and ending is Ending.DONE)
            self._count -= int(self._options.burst)
            if ending is not Ending.DONE or not self._expected_end:
                self._slow_down(clock.monotonic() - each.born)
                logger.warning("process %s ended with %s; replacing it", pid, _cause(ending, code))
        return cut_short

    def _tell_observers(self, pid: int) -> None:
        tell(self._app.observers, lambda each: each.process_gone(pid))

    def _strike(self) -> None:
        """Kill a process that does not end a task whose hard limit has passed, or that is wedged.

        A task that never lets go of the interpreter keeps the process's own threads from doing so.
        Only time that this process has seen pass counts: the whole machine may have been paused.
        """
        now = clock.monotonic()
        seen, self._looked = min(now - self._looked, 2 * _TICK), now
        self._listen(seen)
        for each in self._children:
            limit = each.signs.limit
            each.overdue = each.overdue + seen if limit is not None and limit < now else 0.0
            if each.overdue > _UNHEARD:
                logger.warning("process %s is killed: a task holds it beyond its limit", each.pid)
                each.overdue = 0.0
                each.process.kill()

    def _listen(self, seen: float) -> None:
        """Look for the processes' signs of life; kill one that gives none, if there is a watchdog.

        Without one, nobody has said how long is too long: a task may hold the interpreter.

        Args:
            seen: seconds since the last look.
        """
        patience, is_alive = self._manager.patience, False
        for each in self._children:
            beats = each.signs.beats
            each.silent = each.silent + seen if beats == each.beats else 0.0
            each.beats = beats
            # A stop has limits of its own.
            if each.silent > patience and not (self._stops or each.is_killed):
                each.is_killed = True
                logger.warning("process %s is killed: it gives no sign of life", each.pid)
                each.process.kill()
            is_alive |= beats > 0 and each.silent <= patience
        self._lifeless = 0.0 if is_alive else self._lifeless + seen

    def _report(self) -> None:
        """Tell the service manager how it goes.

        It is told that the worker lives while one process at least gives signs of life, and none
        stays wedged: that is killed, and counts again only if it does not even die of that. So one
        bad process costs the others nothing, and what this process cannot mend begins anew.
        """
        if self._stops and self._cold_at is not None:
            left = max(0.0, self._cold_at - clock.monotonic())
            self._manager.stopping(left, restarts=self.changed)
        elif not self._stops:
            consuming = sum(each.consumes for each in self._children) + self._vacant
            self._manager.running(consuming, self._processes)
        patience = self._manager.patience
        if self._lifeless <= patience and all(each.silent <= patience for each in self._children):
            self._manager.alive()

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
            if not self._cold_asked:
                logger.info("stopping: running tasks have %g seconds to finish", self._grace)
                self._tell(signal.SIGTERM)
        overdue = clock.monotonic() - self._cold_at
        if not self._cold_asked and overdue < 0:
            return
        if not self._is_cold:
            self._is_cold = True
            self._cold_at = min(self._cold_at, clock.monotonic())
            if self._children:
                logger.warning("stopping now: running tasks go back to their queues")
            self._tell(signal.SIGQUIT)
        elif overdue > _FAREWELL:
            self._tell(signal.SIGKILL)

    def _tell(self, number: signal.Signals) -> None:
        for each in self._children:
            if each.process.is_alive():
                os.kill(each.pid, number)


def _cause(ending: Ending, code: int | None) -> str:
    if code is not None and code < 0:
        return f"signal {_signal_name(-code)}"
    return _CAUSES.get(ending, f"exit code {code}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal has a number only
        return str(number)
