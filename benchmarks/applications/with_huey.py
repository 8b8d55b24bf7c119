"""huey, two threads; on Redis with notify_result, so that waiters need not poll."""

from __future__ import annotations

import importlib
import os
from typing import Any

__all__ = ["WORKER", "echo", "huey", "result", "submit"]

_huey: Any = importlib.import_module("huey")
_url = os.environ["BENCH_BROKER"]
if _url.startswith("sqlite:"):
    huey: Any = _huey.SqliteHuey("bench", filename=_url.partition("://")[2].removeprefix("/"))
else:
    huey = _huey.RedisHuey("bench", url=_url, notify_result=True)

WORKER = ["-m", "huey.bin.huey_consumer", f"{__name__}.huey", "-w", "2", "-q"]


@huey.task()  # type: ignore[untyped-decorator]
def echo(number: int) -> int:
    """Return the argument."""
    return number


def submit(number: int) -> Any:
    """Send a task."""
    return echo(number)


def result(handle: Any, timeout: float) -> Any:
    """Wait for its value."""
    return handle.get(blocking=True, timeout=timeout)
