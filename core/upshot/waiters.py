"""The sinks of the wait hub: a blocked thread, an asyncio loop, callbacks; and a wait in vain."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Generic, Protocol, TypeVar

from upshot import clock
from upshot.errors import ResultTimeoutError, UpshotError
from upshot.record import printable

__all__ = ["CallbackSink", "LoopSink", "Sink", "ThreadSink", "timed_out"]

logger = logging.getLogger(__name__)

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)

_SIGNAL_LOOK: Final = 1.0
"""Seconds that the main thread blocks at a time. A signal that comes in the moment before it blocks
is handled only when it wakes: Ctrl-C must not wait for a result that never comes."""


class Sink(Protocol[T_contra]):
    """Whoever waits. `deliver` runs on the hub's thread: it is quick and raises nothing."""

    @property
    def is_gone(self) -> bool:
        """True once nobody can be there any more to take anything."""
        ...

    def deliver(self, ended: Sequence[tuple[str, T_contra | UpshotError]]) -> None:
        """Take the keys that ended, each with its terminal record or the error that ends it."""


class ThreadSink(Generic[T]):
    """Collects what ended for one thread that blocks."""

    is_gone: bool = False  # a thread that is blocked is there

    def __init__(self) -> None:
        # A bare lock that is held until something comes: nothing wakes a thread sooner, and nothing
        # is made faster, for two hundred threads that wait.
        self._batches: deque[Sequence[tuple[str, T | UpshotError]]] = deque()
        self._nothing = threading.Lock()
        self._nothing.acquire()

    def deliver(self, ended: Sequence[tuple[str, T | UpshotError]]) -> None:
        """Take a batch from the hub."""
        self._batches.append(ended)
        with contextlib.suppress(RuntimeError):  # released by the batch before, and not yet taken
            self._nothing.release()

    def collect(
        self, count: int, deadline: clock.Deadline
    ) -> Iterator[tuple[str, T | UpshotError]]:
        """Yield `count` ended keys as they come; stop early when the deadline passes."""
        is_main = threading.current_thread() is threading.main_thread()
        glance = _SIGNAL_LOOK if is_main else None
        while count > 0:
            left = deadline.left(glance)
            self._nothing.acquire(timeout=-1 if left is None else left)
            if not self._batches and deadline.expired:
                return
            while self._batches:
                batch = self._batches.popleft()
                count -= len(batch)
                yield from batch


class LoopSink(Generic[T]):
    """Collects what ended for one coroutine; made inside its event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._batches: deque[Sequence[tuple[str, T | UpshotError]]] = deque()
        self._wake: asyncio.Future[None] | None = None

    def deliver(self, ended: Sequence[tuple[str, T | UpshotError]]) -> None:
        """Take a batch from the hub: one call into the loop, however many keys ended."""
        try:
            self._loop.call_soon_threadsafe(self._take, ended)
        except RuntimeError:  # a loop that was closed under its waiters has nobody left to tell
            if not self._loop.is_closed():
                raise

    @property
    def is_gone(self) -> bool:
        """Whether the loop was closed. What waited in it is kept alive by its own wait."""
        return self._loop.is_closed()

    async def batch(self, deadline: clock.Deadline) -> Sequence[tuple[str, T | UpshotError]] | None:
        """Return the next keys that ended, as they come; None if the deadline passes first."""
        if not self._batches:
            await self._until(deadline)
        return self._batches.popleft() if self._batches else None

    async def _until(self, deadline: clock.Deadline) -> None:
        # No wait_for: before Python 3.12 it swallows a cancellation that meets a result. No queue
        # and no asyncio.timeout: collected after their loop was closed, they would call into it.
        self._wake = self._loop.create_future()
        left = deadline.left()
        timer = None if left is None else self._loop.call_later(left, self._awake)
        try:
            await self._wake
        finally:
            if timer is not None:
                timer.cancel()

    def _take(self, ended: Sequence[tuple[str, T | UpshotError]]) -> None:
        self._batches.append(ended)
        self._awake()

    def _awake(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


class CallbackSink(Generic[T]):
    """Calls functions on a thread of its own, so that none of them can hold up the hub.

    Args:
        name: the thread's name; it starts with the first callback.
    """

    is_gone: bool = False  # callbacks are there as long as their client is

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._callbacks: dict[str, list[Callable[[T | UpshotError], object]]] = {}
        self._ended: queue.SimpleQueue[Sequence[tuple[str, T | UpshotError]]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def add(self, key: str, callback: Callable[[T | UpshotError], object]) -> bool:
        """Call `callback` when `key` ends; True if the hub is still to be told to watch `key`."""
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            callbacks = self._callbacks.setdefault(key, [])
            callbacks.append(callback)
            return len(callbacks) == 1

    def withdraw(self, key: str, callback: Callable[[T | UpshotError], object]) -> None:
        """Take back what `add` did, because the hub cannot watch `key`."""
        with self._lock:
            callbacks = self._callbacks.get(key, [])
            if callback in callbacks:
                callbacks.remove(callback)
            if not callbacks:
                self._callbacks.pop(key, None)

    def deliver(self, ended: Sequence[tuple[str, T | UpshotError]]) -> None:
        """Take a batch from the hub."""
        self._ended.put(ended)

    def close(self) -> None:
        """Stop the thread once the callbacks of what has ended are through."""
        self._ended.put(())
        thread = self._thread
        if thread is not None and thread.is_alive() and thread is not threading.current_thread():
            thread.join(timeout=1.0)

    def _run(self) -> None:
        while batch := self._ended.get():
            for key, found in batch:
                with self._lock:
                    callbacks = self._callbacks.pop(key, [])
                for callback in callbacks:
                    try:
                        callback(found)
                    except BaseException:  # whatever it raises, also SystemExit: others' turn comes
                        logger.exception("a callback of a result raised")


def timed_out(
    task_ids: Sequence[str], timeout: float | None, trouble: BaseException | None
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
