"""The metrics: names, labels, buckets. Times are in seconds."""

from __future__ import annotations

from typing import Final, final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

__all__ = ["Metrics"]

_BUCKETS: Final = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0,
)  # fmt: skip
"""prometheus-client's own up to ten seconds, and beyond them what tasks take: up to an hour."""


@final
class Metrics:
    """All that is counted, in one registry.

    Args:
        registry: where they are registered.

    Raises:
        ValueError: it has metrics of these names already, which are somebody else's.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.sent = Counter(
            "upshot_tasks_sent_total",
            "Tasks sent by this process; a call whose key was taken sends none.",
            ("task", "queue"),
            registry=registry,
        )
        self.finished = Counter(
            "upshot_tasks_finished_total",
            "Tasks that have ended on a worker, run or refused, by their state.",
            ("task", "state"),
            registry=registry,
        )
        self.retries = Counter(
            "upshot_task_retries_total",
            "Attempts that ended with another one to come.",
            ("task",),
            registry=registry,
        )
        self.run = Histogram(
            "upshot_task_run_seconds",
            "How long attempts ran, their arguments decoded and their result encoded.",
            ("task",),
            buckets=_BUCKETS,
            registry=registry,
        )
        self.wait = Histogram(
            "upshot_task_wait_seconds",
            "How long messages were due before they were run: since sent, or since their eta.",
            ("task",),
            buckets=_BUCKETS,
            registry=registry,
        )
        self.running = Gauge(
            "upshot_tasks_running",
            "Tasks that run now.",
            ("task",),
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.result_wait = Histogram(
            "upshot_result_wait_seconds",
            "How long callers waited for results, in vain or not.",
            buckets=_BUCKETS,
            registry=registry,
        )
