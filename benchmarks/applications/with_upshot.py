"""upshot, with its defaults."""

from __future__ import annotations

import os
from typing import Any

from upshot import App

__all__ = ["WORKER", "app", "echo", "result", "submit"]

app = App(
    "benchmarks.applications.with_upshot",
    broker=os.environ["BENCH_BROKER"],
    backend=os.environ["BENCH_RESULTS"],
)

WORKER = ["-m", "upshot", "-A", __name__, "worker", "-c", "2", "-l", "WARNING"]


@app.task
def echo(number: int) -> int:
    """Return the argument."""
    return number


def submit(number: int) -> Any:
    """Send a task."""
    return echo.delay(number)


def result(handle: Any, timeout: float) -> Any:
    """Wait for its value."""
    return handle.get(timeout=timeout)
