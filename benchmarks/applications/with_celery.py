"""Celery, with its defaults."""

from __future__ import annotations

import importlib
import os
from typing import Any

__all__ = ["WORKER", "app", "echo", "result", "submit"]

_celery: Any = importlib.import_module("celery")
_broker, _results = os.environ["BENCH_BROKER"], os.environ["BENCH_RESULTS"]
if _broker.startswith("sqlite:"):
    _broker, _results = "sqla+" + _broker, "db+" + _results

app: Any = _celery.Celery(__name__, broker=_broker, backend=_results)

WORKER = ["-m", "celery", "-A", __name__, "worker", "-c", "2", "-l", "WARNING"]


@app.task  # type: ignore[untyped-decorator]
def echo(number: int) -> int:
    """Return the argument."""
    return number


def submit(number: int) -> Any:
    """Send a task."""
    return echo.delay(number)


def result(handle: Any, timeout: float) -> Any:
    """Wait for its value."""
    return handle.get(timeout=timeout)
