"""arq, one process with its default of concurrent jobs."""

from __future__ import annotations

import asyncio
import importlib
import os
from typing import Any

__all__ = ["WORKER", "WorkerSettings", "echo", "result", "submit"]

_connections: Any = importlib.import_module("arq.connections")
_settings: Any = _connections.RedisSettings.from_dsn(os.environ["BENCH_BROKER"])
_loop = asyncio.new_event_loop()
_pools: list[Any] = []

WORKER = ["-m", "arq", f"{__name__}.WorkerSettings"]


async def echo(context: Any, number: int) -> int:
    """Return the argument."""
    return number


class WorkerSettings:
    """What arq's command reads."""

    functions = (echo,)
    redis_settings = _settings


def submit(number: int) -> Any:
    """Send a task."""
    if not _pools:
        _pools.append(_loop.run_until_complete(_connections.create_pool(_settings)))
    return _loop.run_until_complete(_pools[0].enqueue_job("echo", number))


def result(handle: Any, timeout: float) -> Any:
    """Wait for its value."""
    return _loop.run_until_complete(handle.result(timeout=timeout))
