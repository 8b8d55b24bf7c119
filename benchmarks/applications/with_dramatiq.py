"""dramatiq, two processes with its default of threads."""

from __future__ import annotations

import importlib
import os
from typing import Any

__all__ = ["WORKER", "echo", "result", "submit"]

_dramatiq: Any = importlib.import_module("dramatiq")
_url = os.environ["BENCH_BROKER"]
_broker = importlib.import_module("dramatiq.brokers.redis").RedisBroker(url=_url)
_store = importlib.import_module("dramatiq.results.backends.redis").RedisBackend(url=_url)
_broker.add_middleware(importlib.import_module("dramatiq.results").Results(backend=_store))
_dramatiq.set_broker(_broker)

WORKER = ["-m", "dramatiq", __name__, "-p", "2"]


@_dramatiq.actor(store_results=True)  # type: ignore[untyped-decorator]
def echo(number: int) -> int:
    """Return the argument."""
    return number


def submit(number: int) -> Any:
    """Send a task."""
    return echo.send(number)


def result(handle: Any, timeout: float) -> Any:
    """Wait for its value."""
    return handle.get_result(block=True, timeout=round(timeout * 1000))
