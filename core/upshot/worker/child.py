"""One process of a worker: a consumer, its signals, and its end."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

from upshot.app import App
from upshot.engine import Consumer
from upshot.errors import ServiceError
from upshot.worker.options import WorkerOptions

__all__ = ["COLD", "TIME_LIMIT", "UNAVAILABLE", "serve"]

logger = logging.getLogger("upshot.worker")

COLD = 1
"""Exit code of a process that gave its tasks back instead of finishing them."""

UNAVAILABLE = 69
"""Exit code of a burst process that could not reach its broker (EX_UNAVAILABLE of sysexits.h)."""

TIME_LIMIT = 70
"""Exit code of a process that ended because a task passed its hard limit."""


def serve(app: App, options: WorkerOptions, *, threads: int, parent: int, name: str) -> None:
    """Consume until told to stop; runs in the child process, in its main thread.

    SIGTERM stops warm, SIGQUIT cold. SIGINT is left to the parent: a terminal sends it to the
    whole group, and the parent turns it into one of the two.
    """

    def end() -> None:
        # Python cannot end a thread that runs somebody's code; only the process can go.
        logging.shutdown()
        os._exit(COLD if consumer_is_cold else TIME_LIMIT)

    consumer_is_cold = False

    def heard(number: int) -> None:
        nonlocal consumer_is_cold
        if number == signal.SIGQUIT:
            consumer_is_cold = True
            consumer.stop_cold()
        elif number == signal.SIGTERM:
            consumer.stop()

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    consumer = Consumer(
        app.host(),
        queues=options.queues or app.queues(),
        threads=threads,
        name=name,
        burst=options.burst,
        max_tasks=options.max_tasks_per_child or app.settings.worker_max_tasks_per_child,
        end_process=end,
        is_orphaned=lambda: os.getppid() != parent,
    )
    _listen_for_signals(heard)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGQUIT})
    try:
        consumer.run()
    except ServiceError as exc:
        logger.error("%s", exc)
        sys.exit(UNAVAILABLE)
    finally:
        app.close()


def _listen_for_signals(heard: Callable[[int], object]) -> None:
    """Call `heard(number)` for SIGTERM and SIGQUIT, on a thread of its own.

    Python runs a signal's handler between two bytecodes of the main thread. A second signal that
    comes just before a task's blocking call would so be seen only when that call returns. The
    wake-up descriptor is written to at once, whatever the main thread does.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, _no_handler)

    def listen() -> None:
        while number := os.read(reading, 1):
            heard(number[0])

    def leave_to_the_task() -> None:
        # A process that a task forks shares the descriptor: its signals are not ours, nor ours its.
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)

    os.register_at_fork(after_in_child=leave_to_the_task)
    threading.Thread(target=listen, name="upshot-signals", daemon=True).start()


def _no_handler(number: int, frame: FrameType | None) -> None:
    """Let Python catch the signal; the wake-up descriptor tells of it."""
