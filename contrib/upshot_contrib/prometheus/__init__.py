"""Prometheus: what an app sends, runs and reads as metrics, and what its broker holds.

`instrument(app)` is all that an application calls; `upshot metrics` serves what its workers count.
How the pieces fit:

    instrumenting   what `instrument` checks
    metrics         the metrics: names, labels, buckets
    counting        the observer that counts
    labels          which names of tasks and queues are labels
    queues          lengths of queues and workers, asked of the broker at each scrape
    command         `upshot metrics`
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from upshot.errors import DriverMissingError

if TYPE_CHECKING:
    from upshot_contrib.prometheus.instrumenting import instrument
    from upshot_contrib.prometheus.queues import QueueCollector

__all__ = ["QueueCollector", "instrument"]

if not TYPE_CHECKING:  # for a checker, a module with this function has every name

    def __getattr__(name: str) -> object:
        """Import what is asked for: `upshot --help` needs the command, and not what it serves."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            from upshot_contrib.prometheus import instrumenting, queues
        except ModuleNotFoundError as exc:
            if not (exc.name or "").startswith("prometheus_client"):
                raise
            raise DriverMissingError(
                "metrics need the module prometheus-client, which is not installed: "
                'pip install "upshot[prometheus]"',
                name=exc.name,
            ) from exc
        return instrumenting.instrument if name == "instrument" else queues.QueueCollector
