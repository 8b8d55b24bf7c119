"""Lengths of queues, and how many worker processes serve them, asked of the broker when scraped."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, final

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from upshot import App, clock
from upshot.broker import QueueStatus
from upshot.errors import ServiceError
from upshot.seldom import Seldom

__all__ = ["QueueCollector"]

logger = logging.getLogger(__name__)

_TIMEOUT: Final = 5.0
"""Seconds: half of Prometheus's own `scrape_timeout`."""


@final
class QueueCollector(Collector):
    """Asks the app's broker at each scrape.

    Register it in one place only: each that has it reports the same queues. `upshot metrics` does.

    Args:
        app: whose broker to ask.
        queues: names; by default all that the app's tasks name.
        timeout: seconds that a scrape may take. If the broker does not answer in time,
            `upshot_broker_up` is 0 and there is nothing else.
    """

    def __init__(self, app: App, *, queues: Sequence[str] = (), timeout: float = _TIMEOUT) -> None:
        self._app = app
        self._queues = tuple(queues)
        self._timeout = timeout
        self._complaint = Seldom()

    def describe(self) -> Iterable[Metric]:
        """Return no names: the broker is not asked because somebody registers this."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Return what the broker says now."""
        up = GaugeMetricFamily("upshot_broker_up", "Whether the broker answers.")
        found: Mapping[str, QueueStatus] = {}
        names = self._queues or tuple(self._app.queues())
        try:
            found = self._app.broker.call(
                lambda broker, seconds: broker.survey(names, seconds),
                deadline=clock.Deadline(self._timeout),
            )
        except ServiceError as exc:
            up.add_metric((), 0)
            if self._complaint.is_due():
                logger.warning("the broker does not say what is in its queues: %s", exc)
        else:
            up.add_metric((), 1)
        return [up, *_families(found)] if found else [up]


def _families(found: Mapping[str, QueueStatus]) -> Iterable[Metric]:
    messages = GaugeMetricFamily(
        "upshot_queue_messages",
        "Messages of a queue: ready, delayed until their eta, leased to workers, dead.",
        labels=("queue", "status"),
    )
    workers = GaugeMetricFamily(
        "upshot_queue_workers",
        "Processes of workers that serve a queue, by their signs of life.",
        labels=("queue",),
    )
    for queue, each in found.items():
        counts = {"ready": each.ready, "delayed": each.delayed, "leased": each.leased}
        for status, count in (counts | {"dead": each.dead}).items():
            if count is not None:  # RabbitMQ cannot tell all of it
                messages.add_metric((queue, status), count)
        if each.workers is not None:
            workers.add_metric((queue,), len(each.workers))
    return messages, workers
