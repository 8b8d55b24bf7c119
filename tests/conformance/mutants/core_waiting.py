"""Broken cores: waits that end early, late, twice or never; `core` has the others."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Sequence
from typing import Any, Final

from upshot import clock
from upshot.client import ResultClient
from upshot.clock import Deadline
from upshot.errors import UpshotError
from upshot.listening import Hint
from upshot.record import Record
from upshot.states import State
from upshot.waiters import CallbackSink, LoopSink
from upshot.waiting import Hub

from .breaking import put


def _edit_timeouts(edit: Callable[[float], float]) -> None:
    original = Deadline.__init__

    def init(self: Deadline, timeout: float | None) -> None:
        original(self, None if timeout is None else edit(timeout))

    put(Deadline, "__init__", init)


def _use_the_wall_clock() -> None:
    def init(self: Any, timeout: float | None) -> None:
        if timeout is not None and not timeout >= 0:
            raise ValueError("timeout")
        endless = timeout is None or timeout > threading.TIMEOUT_MAX
        self._at = None if endless else clock.now() + (timeout or 0.0)

    def left(self: Any, at_most: float | None = None) -> float | None:
        left = at_most if self._at is None else max(0.0, self._at - clock.now())
        return left if at_most is None or left is None else min(left, at_most)

    put(Deadline, "__init__", init)
    put(Deadline, "left", left)
    put(
        Deadline, "expired", property(lambda self: self._at is not None and clock.now() >= self._at)
    )


def _wake_one() -> None:
    original: Callable[..., None] = vars(Hub)["_finish"]

    def finish(self: Any, ended: dict[str, object]) -> None:
        for key in ended:
            del self._sinks.get(key, [])[1:]
        original(self, ended)

    put(Hub, "_finish", finish)


def _end_at_the_start() -> None:
    terminal: Any = vars(Record)["is_terminal"]

    def is_terminal(self: Record) -> bool:
        return self.state == State.STARTED or terminal.fget(self)

    put(Record, "is_terminal", property(is_terminal))


def _call_twice() -> None:
    original: Callable[..., bool] = vars(CallbackSink)["add"]

    def add(self: object, key: str, callback: Callable[[object], object]) -> bool:
        def twice(found: object) -> None:
            callback(found)
            callback(found)

        return original(self, key, twice)

    put(CallbackSink, "add", add)


def _believe_every_hint() -> None:
    original: Callable[..., None] = vars(Hub)["_heed"]

    def heed(self: Any, hints: Sequence[Hint]) -> None:
        for key, body in hints:
            if key is not None and body:
                found = self._decode(key, body)
                if isinstance(found, UpshotError):
                    self._finish({key: found})
        original(self, hints)

    put(Hub, "_heed", heed)


def _never_unwatch() -> None:
    def unwatch(self: object, keys: object, sink: object) -> None:
        """Never does."""

    put(Hub, "unwatch", unwatch)


def _take_cancelling_for_a_timeout() -> None:
    original: Callable[..., Awaitable[Any]] = vars(LoopSink)["batch"]

    async def batch(self: object, deadline: Deadline) -> Any:
        try:
            return await original(self, deadline)
        except asyncio.CancelledError:
            return None

    put(LoopSink, "batch", batch)


def _look_in_the_coroutine() -> None:
    original = ResultClient.wait_async

    async def wait_async(
        self: ResultClient, task_ids: Iterable[str], *, timeout: float | None = None
    ) -> AsyncGenerator[tuple[str, Record | UpshotError]]:
        ids = list(task_ids)
        self.load_many(ids)
        async for each in original(self, ids, timeout=timeout):
            yield each

    put(ResultClient, "wait_async", wait_async)


def _wait_one_at_a_time() -> None:
    original, lock = ResultClient.wait, threading.Lock()

    def wait(self: ResultClient, task_id: str, *, timeout: float | None = None) -> Record:
        with lock:
            return original(self, task_id, timeout=timeout)

    put(ResultClient, "wait", wait)


def _look_at_each() -> None:
    original: Callable[..., object] = vars(Hub)["_look"]

    def look(self: object, keys: Sequence[str]) -> object:
        return [original(self, [key]) for key in keys][-1]

    put(Hub, "_look", look)


def _repeat_duplicates() -> None:
    original = ResultClient.wait_many

    def wait_many(
        self: ResultClient, task_ids: Iterable[str], *, timeout: float | None = None
    ) -> Generator[tuple[str, Record | UpshotError]]:
        ids = Counter(task_ids)
        for task_id, found in original(self, ids, timeout=timeout):
            for _ in range(ids[task_id]):
                yield task_id, found

    put(ResultClient, "wait_many", wait_many)


MUTANTS: Final[dict[str, tuple[str, Callable[[], None]]]] = {
    "timeouts are in milliseconds": ("WT-2", lambda: _edit_timeouts(lambda s: s / 1000)),
    "a timeout of zero waits": ("WT-2", lambda: _edit_timeouts(lambda s: s or 0.02)),
    "timeouts are whole seconds": (
        "WT-2",
        lambda: _edit_timeouts(lambda s: float(s > 0) and s + 0.7),
    ),
    "negative timeouts are zero": ("WT-2", lambda: _edit_timeouts(lambda s: max(s, 0.0))),
    "timeouts run on the wall clock": ("WT-2", _use_the_wall_clock),
    "one waiter of several wakes": ("WT-3", _wake_one),
    "duplicates are yielded again": ("WT-5", _repeat_duplicates),
    "each id is looked at alone": ("WT-5", _look_at_each),
    "STARTED ends a wait": ("WT-7", _end_at_the_start),
    "callbacks run twice": ("WT-7", _call_twice),
    "unreadable hints end a wait": ("WT-7", _believe_every_hint),
    "waiters stay": ("WT-8", _never_unwatch),
    "cancelling is a timeout": ("WT-8", _take_cancelling_for_a_timeout),
    "coroutines look themselves": ("WT-9", _look_in_the_coroutine),
    "one wait at a time": ("WT-10", _wait_one_at_a_time),
}
"""What is broken: which clause must go red, and how to break it."""
