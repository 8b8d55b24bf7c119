"""One process of a worker: a consumer, its signals, and its end."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Final, NoReturn, final

from upshot import clock
from upshot.app import App
from upshot.engine import Consumer, Pulse
from upshot.errors import UpshotError
from upshot.observing import close_all
from upshot.worker.options import WorkerOptions
from upshot.worker.signs import Ending, Signs
from upshot.worker.surroundings import DamagedError, Surroundings

__all__ = ["serve"]

logger = logging.getLogger("upshot.worker")

_STOPS: Final = (signal.SIGTERM, signal.SIGQUIT)
_LEFT_TO_PARENT: Final = (signal.SIGINT, signal.SIGHUP)
_LAST_WORDS: Final = 3.0  # seconds for observers; a cold stop has no more than a second for all
_LAST_WORDS_COLD: Final = 0.1

_End = Callable[[Ending], NoReturn]


def serve(
    app: App,
    options: WorkerOptions,
    *,
    threads: int,
    parent: int,
    name: str,
    grace: float,
    signs: Signs,
) -> NoReturn:
    """Consume until told to stop; runs in the child process, in its main thread.

    SIGTERM stops warm, SIGQUIT cold. SIGINT and SIGHUP are left to the parent: a terminal sends
    them to the whole group, and the parent turns them into one of the two. A process whose parent
    is gone stops likewise: warm at first, and cold after the grace.
    """
    for number in _LEFT_TO_PARENT:
        signal.signal(number, signal.SIG_IGN)
    end = partial(_end, app, signs)
    stops = _Stops(end, parent=parent, grace=grace)
    consumer = stops.consumer = Consumer(
        app.host(),
        queues=options.queues or app.queues(),
        threads=threads,
        name=name,
        burst=options.burst,
        max_tasks=options.max_tasks_per_child or app.settings.worker_max_tasks_per_child,
        end_process=stops.end,
        is_orphaned=stops.is_orphaned,
        tidy=lambda: _tidy(surroundings, end),
        limited=lambda moment: setattr(signs, "limit", moment),
        pulse=Pulse(app.settings, beat=signs.beat, consumes=signs.consume),
    )
    kept = _listen_for_signals(stops.heard)
    surroundings = Surroundings(kept, (*_STOPS, *_LEFT_TO_PARENT))
    try:
        consumer.run()
    except UpshotError as exc:  # of a service, or a URL that leads to none
        logger.error("%s", exc)
        end(Ending.UNAVAILABLE)
    except BaseException:  # a defect of ours, or a task's doing; the supervisor starts another
        logger.exception("the process ends")
        end(Ending.LOST)
    end(stops.ending)


@final
class _Stops:
    """Why and how the process may have to stop."""

    consumer: Consumer
    ending = Ending.DONE
    """How the process ends if it ends now, by itself or by a cold stop."""

    def __init__(self, end: _End, *, parent: int, grace: float) -> None:
        self._end = end
        self._parent = parent
        self._grace = grace
        self._is_cold = False
        self._orphaned_at: float | None = None

    def heard(self, number: int) -> None:
        """Do what a signal asks for."""
        if number == signal.SIGTERM:
            self.consumer.stop()
        elif number == signal.SIGQUIT:
            if not self.consumer.is_idle:  # otherwise it only waits for a service
                self.ending = Ending.CUT_SHORT
            self._is_cold = True
            self.consumer.cut_short()

    def end(self) -> NoReturn:
        """End the process while tasks run in it."""
        self._end(self.ending if self._is_cold else Ending.TIME_LIMIT)

    def is_orphaned(self) -> bool:
        """Tell whether the parent is gone; stop cold once that is so for longer than the grace."""
        if os.getppid() == self._parent:
            return False
        if self._orphaned_at is None:
            self._orphaned_at = clock.monotonic()
            logger.warning("the worker's main process is gone: stopping")
        elif clock.monotonic() > self._orphaned_at + self._grace:
            self.heard(signal.SIGQUIT)
        return True


def _end(app: App, signs: Signs, why: Ending) -> NoReturn:
    """End the process now, with what tasks left in it.

    Python cannot end a thread that runs somebody's code, and would wait for it; only the process
    can go. The processes that tasks started by `multiprocessing` go with it, as they would in any
    program that ends.
    """
    signs.ending = why
    seconds = _LAST_WORDS_COLD if why is Ending.CUT_SHORT else _LAST_WORDS
    seconds = seconds if app.observers else 0.0
    signs.limit = clock.monotonic() + seconds  # the supervisor kills what does not end then
    try:
        if why is not Ending.DAMAGED:  # what they have open may be somebody else's then
            close_all(app.observers, seconds)
        for process in multiprocessing.active_children():
            process.terminate()
        logging.shutdown()
        sys.stdout.flush()
    finally:
        os._exit(why.exit_code)


def _tidy(surroundings: Surroundings, end: _End) -> None:
    try:
        surroundings.restore()
    except DamagedError as exc:
        logger.error("the process ends: %s", exc)
        end(Ending.DAMAGED)


def _listen_for_signals(heard: Callable[[int], object]) -> int:
    """Call `heard(number)` for SIGTERM and SIGQUIT, on a thread of its own.

    Python runs a signal's handler between two bytecodes of the main thread. A second signal that
    comes just before a task's blocking call would so be seen only when that call returns. The
    wake-up descriptor is written to at once, whatever the main thread does. A task can take that
    descriptor away for as long as it runs, as asyncio does; then the handler passes signals on.

    Returns:
        The wake-up descriptor.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

    def handler(number: int, frame: FrameType | None) -> None:
        current = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        if current != writing:
            signal.set_wakeup_fd(current, warn_on_full_buffer=False)
            os.write(writing, bytes([number]))

    for number in _STOPS:
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)  # before the thread is made, which shares it

    def listen() -> None:
        try:
            while number := os.read(reading, 1):
                heard(number[0])
        except OSError as exc:
            logger.error("signals are heard no more: %s", exc)

    _leave_forks_alone()
    threading.Thread(target=listen, name="upshot-signals", daemon=True).start()
    return writing


def _leave_forks_alone() -> None:
    """See to it that a process which a task forks has signals of its own.

    It shares the wake-up descriptor. Until it has let go of that, a signal to it would be taken for
    one to this process: signals are held back meanwhile.
    """
    numbers = (*_STOPS, *_LEFT_TO_PARENT)
    masks = threading.local()

    def hold_back() -> None:
        masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)

    def go_on() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.before)

    def let_go() -> None:
        signal.set_wakeup_fd(-1)
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
        go_on()

    os.register_at_fork(before=hold_back, after_in_parent=go_on, after_in_child=let_go)
