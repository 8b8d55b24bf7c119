"""The ten hottest paths: what users call most, each on a service where they call it most.

A path's `prepare` opens what it needs and returns one operation, which is then called over and
over; what each call uses up was made before.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Final

from benchmarks.contenders.ours import Upshot
from benchmarks.stage import VALUES
from upshot import App
from upshot.engine import Consumer

__all__ = ["PATHS", "HotPath", "Operation"]

Operation = Callable[[], object]

_SMALL: Final = VALUES["small"]
_BATCH: Final = 1_000
_BURST: Final = 25


@dataclass(frozen=True, slots=True)
class HotPath:
    """One path.

    Attributes:
        service: where it runs; a name of `benchmarks.services.SERVICES`, or `memory`.
        calls: how many calls are counted, 1 or more. As many before them are a warm-up, except
            before a single one: what it does a thousand times needs none.
        prepare: takes the service's URL, how many calls there will be in all, and a stack for what
            is to be closed; returns the operation.
    """

    service: str
    calls: int
    prepare: Callable[[str, int, ExitStack], Operation]

    @property
    def warm_up(self) -> int:
        """How many calls there are before the first that is counted."""
        return 0 if self.calls == 1 else self.calls


def _new_ids(count: int) -> list[str]:
    return [uuid.uuid4().hex for _ in range(count)]


def _store_and_fetch(url: str, calls: int, stack: ExitStack) -> Operation:
    ours, ids = stack.enter_context(closing(Upshot(url))), iter(_new_ids(calls))

    def operation() -> None:
        task_id = next(ids)
        ours.store(task_id, _SMALL)
        ours.fetch(task_id)

    return operation


def _store(url: str, calls: int, stack: ExitStack) -> Operation:
    ours, ids = stack.enter_context(closing(Upshot(url))), iter(_new_ids(calls))
    return lambda: ours.store(next(ids), _SMALL)


def _fetch(url: str, calls: int, stack: ExitStack) -> Operation:
    ours, ids = _stored(url, calls, stack)
    each = iter(ids)
    return lambda: ours.fetch(next(each))


def _forget(url: str, calls: int, stack: ExitStack) -> Operation:
    ours, ids = _stored(url, calls, stack)
    each = iter(ids)
    return lambda: ours.forget(next(each))


def _fetch_many(url: str, calls: int, stack: ExitStack) -> Operation:
    ours, ids = _stored(url, _BATCH, stack)
    return lambda: ours.fetch_many(ids)


def _stored(url: str, count: int, stack: ExitStack) -> tuple[Upshot, list[str]]:
    ours, ids = stack.enter_context(closing(Upshot(url))), _new_ids(count)
    ours.store_many(dict.fromkeys(ids, _SMALL))
    return ours, ids


def _echo(value: object) -> object:
    return value


def _submit(url: str, calls: int, stack: ExitStack) -> Operation:
    app = stack.enter_context(App(broker=url, backend=url))
    task = app.task(name="echo")(_echo)
    return lambda: task.delay(_SMALL)


def _run(url: str, calls: int, stack: ExitStack) -> Operation:
    """Let the worker's engine run a burst of tasks, in the calling thread."""
    app = stack.enter_context(App(broker=url, backend=url))
    task = app.task(name="echo")(_echo)
    for _ in range(calls * _BURST):
        task.delay(_SMALL)
    queues = app.queues()

    def operation() -> None:
        Consumer(app.host(), queues=queues, burst=True, max_tasks=_BURST).run()

    return operation


PATHS: Final[dict[str, HotPath]] = {
    "memory: store and fetch": HotPath("memory", 30, _store_and_fetch),
    "memory: run 25 tasks": HotPath("memory", 2, _run),
    "redis: submit a task": HotPath("redis", 30, _submit),
    "redis: store": HotPath("redis", 30, _store),
    "redis: fetch": HotPath("redis", 30, _fetch),
    "redis: forget": HotPath("redis", 30, _forget),
    "redis: fetch 1 000": HotPath("redis", 1, _fetch_many),
    "sqlite: store": HotPath("sqlite", 30, _store),
    "sqlite: fetch": HotPath("sqlite", 30, _fetch),
    "memcached: fetch": HotPath("memcached", 30, _fetch),
}
"""By name, in the order in which they are counted."""
