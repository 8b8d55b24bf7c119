"""What every contender can be asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

__all__ = ["KEPT", "Contender", "driver"]

KEPT: Final = 86_400
"""Seconds for which every contender keeps a result: Celery's default, and upshot's."""


class Contender:
    """One way to keep and fetch results on one service.

    It lives in a process of its own, is used by several threads at once, and takes the defaults
    that its documentation recommends. Whatever it has no way to do raises NotImplementedError, and
    its cell of the table stays empty.

    Args:
        url: of the service, in upshot's notation.
    """

    serves_threads = True
    """Whether any thread of a process can fetch a result that the process expects."""

    def __init__(self, url: str) -> None:
        self.url = url

    def address(self) -> str:
        """Where to send what this process waits for; "" where results are stored."""
        return ""

    def expect(self, task_ids: Sequence[str]) -> None:
        """Do what submitting tasks would do, so that their results are taken in."""

    def store(self, task_id: str, value: object, address: str = "") -> None:
        """Encode a value and store it as the outcome of a task that succeeded."""
        raise NotImplementedError

    def fetch(self, task_id: str) -> Any:
        """Return the value of a task that has ended, as a user of a new handle would get it."""
        raise NotImplementedError

    def forget(self, task_id: str) -> None:
        """Remove what is stored of a task."""
        raise NotImplementedError

    def store_many(self, values: Mapping[str, object], address: str = "") -> None:
        """Store many values at once, if there is a way; otherwise one after the other."""
        for task_id, value in values.items():
            self.store(task_id, value, address)

    def fetch_many(self, task_ids: Sequence[str]) -> list[Any]:
        """Return the values of many tasks that have ended."""
        return [self.fetch(task_id) for task_id in task_ids]

    def wait(self, task_id: str, timeout: float) -> Any:
        """Block until a task has ended, and return its value."""
        raise NotImplementedError

    def wait_many(self, task_ids: Sequence[str], timeout: float) -> list[Any]:
        """Block until many tasks have ended, and return their values."""
        return [self.wait(task_id, timeout) for task_id in task_ids]

    def await_many(self, task_ids: Sequence[str], timeout: float) -> list[Any]:
        """Await each of many tasks in a coroutine of its own, on one event loop.

        A loop of its own need not outlive the call, as that of `asyncio.run` does not.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Close what is open."""


def driver(name: str) -> Any:
    """Import what only this contender needs; `Any`, because half of them have no hints."""
    return importlib.import_module(name)
