"""The observer that counts."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import final

from prometheus_client import multiprocess

from upshot import App, State, clock
from upshot.observing import Ended, Observer, Reading, Run, Sending
from upshot_contrib.prometheus.labels import UNKNOWN, Names
from upshot_contrib.prometheus.metrics import Metrics

__all__ = ["Counting"]


@final
class Counting(Observer):
    """Counts what one app does.

    Args:
        app: whose registered tasks are labels.
        metrics: what is counted.
    """

    def __init__(self, app: App, metrics: Metrics) -> None:
        self._metrics = metrics
        self._tasks = Names(app.tasks)
        self._queues = Names()
        self._begun: dict[Run, float] = {}

    def __repr__(self) -> str:
        return "<Counting>"

    @contextmanager
    def sending(self, sending: Sending) -> Generator[None]:
        """Count what has left; nobody knows that of what was not taken."""
        yield
        for position, message in enumerate(sending.messages):
            if position not in sending.repeats:
                labels = self._tasks.sent(message.name), self._queues.sent(message.queue)
                self._metrics.sent.labels(*labels).inc()

    @contextmanager
    def running(self, run: Run) -> Generator[None]:
        """Measure how long a message was due, and how long it runs."""
        message = run.message
        task = self._tasks.registered(message.name)
        due = max(message.queued_at or 0.0, message.eta or 0.0)
        if due:
            self._metrics.wait.labels(task).observe(max(0.0, clock.now() - due))
        self._metrics.running.labels(task).inc()
        self._begun[run] = clock.monotonic()
        try:
            yield
        finally:
            self._over(run)

    def ended(self, ended: Ended) -> None:
        """Count an end; one by a time limit is that of a run which may go on."""
        task = UNKNOWN if ended.message is None else self._tasks.registered(ended.message.name)
        if ended.run is not None:
            self._over(ended.run)
        if ended.state == State.RETRY:
            self._metrics.retries.labels(task).inc()
        else:
            self._metrics.finished.labels(task, str(ended.state)).inc()

    @contextmanager
    def reading(self, reading: Reading) -> Generator[None]:
        """Measure how long a caller waits."""
        begun = clock.monotonic()
        try:
            yield
        finally:
            self._metrics.result_wait.observe(clock.monotonic() - begun)

    def process_gone(self, pid: int) -> None:
        """Forget what was running in a process that has ended."""
        if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]  # pyright: ignore

    def _over(self, run: Run) -> None:
        begun = self._begun.pop(run, None)
        if begun is not None:
            task = self._tasks.registered(run.message.name)
            self._metrics.running.labels(task).dec()
            self._metrics.run.labels(task).observe(clock.monotonic() - begun)
