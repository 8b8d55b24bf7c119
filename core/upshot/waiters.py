"""The sinks of the wait hub: a blocked thread, an asyncio loop, callbacks; and a wait in vain."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Generic, TypeVar

from upshot import clock
from upshot.errors import ResultTimeoutError, UpshotError
from upshot.record import printable

__all__ = ["CallbackSink", "LoopSink", "ThreadSink", "timed_out"]

logger = logging.getLogger(__name__)

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


class CallbackSink(Generic[T]):
    """Calls functions on a thread of its own, so that none of them can hold up the hub.

    Args:
        name: the thread's name; it starts with the first callback.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._callbacks: dict[str, list[Callable[[T | UpshotError], object]]] = {}
        self._ended: queue.SimpleQueue[Sequence[tuple[str, T | UpshotError]]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def add(self, key: str, callback: Callable[[T | UpshotError], object]) -> bool:
        """Call `callback` when `key` ends; True if the hub is still to be told to watch `key`."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            callbacks = self._callbacks.setdefault(key, [])
            callbacks.append(callback)
            return len(callbacks) == 1

    def deliver(self, ended: Sequence[tuple[str, T | UpshotError]]) -> None:
        """Take a batch from the hub."""
        self._ended.put(ended)

    def close(self) -> None:
        """Stop the thread once the callbacks of what has ended are through."""
        self._ended.put(())
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=1.0)

    def _run(self) -> None:
        while batch := self._ended.get():
            for key, found in batch:
                with self._lock:
                    callbacks = self._callbacks.pop(key, [])
                for callback in callbacks:
                    try:
                        callback(found)
                    except Exception:  # a user's function; the others' turn comes all the same
                        logger.exception("a callback of a result raised")


def timed_out(
    task_ids: Sequence[str], timeout: float | None, trouble: UpshotError | None
) -> ResultTimeoutError:
    """Return the error of a wait that ended before `task_ids` did.

    Args:
        task_ids: what had not ended; the first three are named.
        timeout: the seconds that were waited.
        trouble: why the service could not be read meanwhile; None if it could.
    """
    some = ", ".join(repr(printable(task_id)) for task_id in task_ids[:3])
    more = f" and {len(task_ids) - 3} more" if len(task_ids) > 3 else ""
    why = f"; {trouble}" if trouble else ""
    return ResultTimeoutError(f"{some}{more} did not end within {timeout} seconds{why}")
