"""One process of a worker: a consumer, its signals, and its end."""

from __future__ import annotations

import logging
import os
import signal
import sys
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

    def warm(number: int, frame: FrameType | None) -> None:
        consumer.stop()

    def cold(number: int, frame: FrameType | None) -> None:
        nonlocal consumer_is_cold
        consumer_is_cold = True
        consumer.stop_cold()

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
    signal.signal(signal.SIGTERM, warm)
    signal.signal(signal.SIGQUIT, cold)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGQUIT})
    try:
        consumer.run()
    except ServiceError as exc:
        logger.error("%s", exc)
        sys.exit(UNAVAILABLE)
    finally:
        app.close()
