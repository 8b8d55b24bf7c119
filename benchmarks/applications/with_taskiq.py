"""taskiq with its list queue on Redis, two processes."""

from __future__ import annotations

import asyncio
import importlib
import os
from typing import Any

__all__ = ["WORKER", "broker", "echo", "result", "submit"]

_redis: Any = importlib.import_module("taskiq_redis")
_url = os.environ["BENCH_BROKER"]
broker: Any = _redis.ListQueueBroker(_url).with_result_backend(
    _redis.RedisAsyncResultBackend(_url, result_ex_time=86_400)
)
_loop = asyncio.new_event_loop()

WORKER = ["-m", "taskiq", "worker", f"{__name__}:broker", "-w", "2", "--log-level", "ERROR"]


@broker.task  # type: ignore[untyped-decorator]
async def echo(number: int) -> int:
    """Return the argument."""
    return number


def submit(number: int) -> Any:
    """Send a task."""
    return _loop.run_until_complete(echo.kiq(number))


def result(handle: Any, timeout: float) -> Any:
    """Wait for its value."""
    return _loop.run_until_complete(handle.wait_result(timeout=timeout)).return_value
