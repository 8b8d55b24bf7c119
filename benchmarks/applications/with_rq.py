"""RQ, two workers, each of which forks for every job."""

from __future__ import annotations

import importlib
import os
from typing import Any

__all__ = ["WORKER", "echo", "result", "submit"]

_url = os.environ["BENCH_BROKER"]
_connection: Any = importlib.import_module("redis").Redis.from_url(_url)
_queue: Any = importlib.import_module("rq").Queue("bench", connection=_connection)

WORKER = ["-m", "rq.cli", "worker-pool", "bench", "-n", "2", "-u", _url, "--logging-level", "ERROR"]


def echo(number: int) -> int:
    """Return the argument."""
    return number


def submit(number: int) -> Any:
    """Send a task."""
    return _queue.enqueue(echo, number)


def result(handle: Any, timeout: float) -> Any:
    """Wait for its value."""
    return handle.latest_result(timeout=round(timeout)).return_value
