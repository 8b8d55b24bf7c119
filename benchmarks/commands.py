"""What clients send to a Redis, counted by the server."""

from __future__ import annotations

import contextlib
import importlib
from collections import Counter
from collections.abc import Callable, Generator
from typing import Any

__all__ = ["commands", "redis_client"]

_END = "ECHO end"


def redis_client(url: str) -> Any:
    """Return a client of the usual driver."""
    return importlib.import_module("redis").Redis.from_url(url)


@contextlib.contextmanager
def commands(url: str) -> Generator[Callable[[], Counter[int]]]:
    """Watch a Redis; yield what ends this and returns the number of commands for each database.

    What scripts do inside the server has not travelled, and is not counted.
    """
    with contextlib.closing(redis_client(url)) as client, client.monitor() as monitor:

        def count() -> Counter[int]:
            client.echo("end")
            sent = Counter[int]()
            for each in monitor.listen():
                if each["command"].startswith(_END):
                    break
                if each["client_type"] != "lua":
                    sent[each["db"]] += 1
            return sent

        yield count
