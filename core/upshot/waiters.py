"""Two kinds of sinks for the wait hub: a blocked thread, and an asyncio loop."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Generic, TypeVar

from upshot import clock
from upshot.errors import UpshotError

__all__ = ["LoopSink", "ThreadSink"]

T = TypeVar("T")


class ThreadSink(Generic[T]):
    """Collects what ended for one thread that blocks."""

    def __init__(self) -> None:
        self._batches: queue.SimpleQueue[Sequence[tuple[str, T | UpshotError]]] = (
            queue.SimpleQueue()
        )

    def deliver(self, ended: Sequence[tuple[str, T | UpshotError]]) -> None:
        """Take a batch from the hub."""
        self._batches.put(ended)

    def collect(
        self, count: int, deadline: clock.Deadline
    ) -> Iterator[tuple[str, T | UpshotError]]:
        """Yield `count` ended keys as they come; stop early when the deadline passes."""
        while count > 0:
            try:
                batch = self._batches.get(timeout=deadline.left())
            except queue.Empty:
                return
            count -= len(batch)
            yield from batch


class LoopSink(Generic[T]):
    """Collects what ended for coroutines of one event loop; made inside that loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._batches: asyncio.Queue[Sequence[tuple[str, T | UpshotError]]] = asyncio.Queue()

    def deliver(self, ended: Sequence[tuple[str, T | UpshotError]]) -> None:
        """Take a batch from the hub: one call into the loop, however many keys ended."""
        # A loop that was closed under its waiters has nobody left to tell.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._batches.put_nowait, ended)

    async def collect(
        self, count: int, deadline: clock.Deadline
    ) -> AsyncIterator[tuple[str, T | UpshotError]]:
        """Yield `count` ended keys as they come; stop early when the deadline passes."""
        while count > 0:
            try:
                batch = await asyncio.wait_for(self._batches.get(), deadline.left())
            except TimeoutError:
                return
            count -= len(batch)
            for item in batch:
                yield item
