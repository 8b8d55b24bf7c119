"""Every public call that asks a service, and how long each takes to come back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterable, Callable, Generator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeAlias

from upshot import App, AsyncResult, ResultSet, clock
from upshot.errors import UpshotError
from upshot.request import Request
from upshot_conformance.concurrency import start

TIMEOUT: Final = 1.0
"""Seconds that every call gets: as its `timeout`, or as `operation_timeout`."""

BOUND: Final = 1.5
"""Seconds after which every call has to be back; the figure of acceptance line 5."""

HANGS: Final = 30.0
"""Seconds after which nobody waits for a call any more."""


def add(x: int, y: int) -> int:
    """A task that no worker runs."""
    return x + y


@dataclass(frozen=True)
class Caller:
    """An app with a task, and the ids of four others that were sent before.

    Two are for waiting, and two for what ends a wait.
    """

    app: App
    ids: tuple[str, ...]

    @property
    def task(self) -> Any:
        """The task `add` of this app."""
        return self.app.task(name="jobs.add")(add)

    @property
    def handle(self) -> AsyncResult[Any]:
        """The handle of a task that has not ended."""
        return AsyncResult(self.ids[0], self.app.origin)

    @property
    def handles(self) -> ResultSet[Any]:
        """Two of those."""
        return ResultSet(AsyncResult[Any](each, self.app.origin) for each in self.ids[:2])

    @property
    def doomed(self) -> AsyncResult[Any]:
        """The handle of a task that nobody waits for."""
        return AsyncResult(self.ids[2], self.app.origin)

    @property
    def all_doomed(self) -> ResultSet[Any]:
        """Two of those."""
        return ResultSet(AsyncResult[Any](each, self.app.origin) for each in self.ids[2:])


Act: TypeAlias = Callable[[Caller], object]


async def _completed(handles: ResultSet[Any]) -> int:
    return len([each async for each in handles.as_completed_async(TIMEOUT)])


async def _all_of(items: AsyncIterable[Any]) -> int:
    return len([each async for each in items])


RESULTS: Final[dict[str, Act]] = {
    "state": lambda c: c.handle.state,
    "status": lambda c: c.handle.status,
    "ready": lambda c: c.handle.ready(),
    "successful": lambda c: c.handle.successful(),
    "failed": lambda c: c.handle.failed(),
    "result": lambda c: c.handle.result,
    "traceback": lambda c: c.handle.traceback,
    "info": lambda c: c.handle.info,
    "queued_at": lambda c: c.handle.queued_at,
    "attempts": lambda c: c.handle.attempts,
    "worker": lambda c: c.handle.worker,
    "name": lambda c: c.handle.name,
    "get": lambda c: c.handle.get(TIMEOUT),
    "get(0)": lambda c: c.handle.get(0),
    "aget": lambda c: asyncio.run(c.handle.aget(TIMEOUT)),
    "exception": lambda c: c.handle.exception(TIMEOUT),
    "stream": lambda c: list(c.handle.stream(timeout=TIMEOUT)),
    "stream, async": lambda c: asyncio.run(_all_of(c.handle.stream(timeout=TIMEOUT))),
    "updates": lambda c: list(c.handle.updates(timeout=TIMEOUT)),
    "updates, async": lambda c: asyncio.run(_all_of(c.handle.updates(timeout=TIMEOUT))),
    "add_done_callback": lambda c: c.handle.add_done_callback(repr),
    "set.get": lambda c: c.handles.get(TIMEOUT),
    "set.aget": lambda c: asyncio.run(c.handles.aget(TIMEOUT)),
    "set.as_completed": lambda c: list(c.handles.as_completed(TIMEOUT)),
    "set.as_completed_async": lambda c: asyncio.run(_completed(c.handles)),
    "set.ready": lambda c: c.handles.ready(),
    "set.successful": lambda c: c.handles.successful(),
    "set.failed": lambda c: c.handles.failed(),
    "app.AsyncResult": lambda c: c.app.AsyncResult(c.ids[0]),
    "app.ResultSet": lambda c: c.app.ResultSet(c.ids),
    "app.outstanding": lambda c: c.app.outstanding(),
    "results.scan": lambda c: list(c.app.results.scan()),
    "results.prune": lambda c: c.app.results.prune(),
    "results.load_many": lambda c: c.app.results.load_many([str(n) for n in range(1500)]),
    "revoke": lambda c: c.doomed.revoke(),
    "set.revoke": lambda c: c.all_doomed.revoke(),
    "forget": lambda c: c.doomed.forget(),
    "set.forget": lambda c: c.all_doomed.forget(),
}
"""What only asks the result backend, by name."""

SENDING: Final[dict[str, Act]] = {
    "delay": lambda c: c.task.delay(1, 2),
    "apply_async": lambda c: c.task.apply_async((1, 2), countdown=60),
    "map": lambda c: c.task.map((n, n) for n in range(3)),
    "send": lambda c: c.app.send([Request(name="jobs.add", args=(1, 2))] * 2),
    "send_task": lambda c: c.app.send_task("jobs.add", [1, 2]),
}
"""What sends tasks, by name."""

BROKER: Final[dict[str, Act]] = {
    "survey": lambda c: c.app.broker.call(lambda b, seconds: b.survey(["default"], seconds)),
    "purge": lambda c: c.app.broker.call(lambda b, seconds: b.purge(["empty"], seconds)),
}
"""What only asks the broker, by name."""

SHORT: Final = ("state", "get", "aget", "set.get", "revoke", "set.forget", "delay", "survey")
"""What is enough on new connections where time is short."""

_LASTING: Final = {"stream", "stream, async", "updates", "updates, async"}
_WAITS: Final = {"get", "aget", "exception", *_LASTING} | {
    f"set.{name}" for name in ("get", "aget", "as_completed", "as_completed_async")
}
"""What waits for the task's end, and so takes `TIMEOUT` on any service."""


@dataclass(frozen=True)
class Answer:
    """What became of one call.

    Attributes:
        name: which call.
        seconds: how long it took, measured by the thread that made it; infinite if it hangs.
        nominal: how long it takes on a service that answers at once.
        error: what it raised; None if it returned.
    """

    name: str
    seconds: float
    nominal: float
    error: BaseException | None

    @property
    def is_clear(self) -> bool:
        """False if it ended in an error that is not upshot's own."""
        return self.error is None or isinstance(self.error, UpshotError)


@dataclass(frozen=True)
class Running:
    """A call that was begun."""

    name: str
    nominal: float
    outcome: Future[tuple[float, BaseException | None]]

    def answer(self) -> Answer:
        """Return what became of it, after `HANGS` seconds at the latest."""
        try:
            seconds, error = self.outcome.result(HANGS)
        except TimeoutError:
            return Answer(self.name, float("inf"), self.nominal, None)
        return Answer(self.name, seconds, self.nominal, error)


def begin(name: str, action: Callable[[], object], *, nominal: float = 0.0) -> Running:
    """Make a call in a thread of its own."""

    def timed() -> tuple[float, BaseException | None]:
        began = clock.monotonic()
        error: BaseException | None = None
        try:
            action()
        except Exception as exc:  # whatever it raises is judged
            error = exc
        return clock.monotonic() - began, error

    return Running(name, nominal, start(timed))


def all_at_once(callers: Callable[[], Caller], calls: dict[str, Act], label: str) -> list[Running]:
    """Begin all calls, each with what `callers` makes for it."""
    running: list[Running] = []
    for name, act in calls.items():
        nominal = TIMEOUT if name in _WAITS else 0.0
        running.append(begin(f"{label} {name}", partial(act, callers()), nominal=nominal))
    return running


@contextmanager
def lateness() -> Generator[Callable[[], float]]:
    """Measure, inside the block, by how much a thread of this process comes too late, at worst."""
    worst, over, pause = 0.0, threading.Event(), 0.01

    def watch() -> None:
        nonlocal worst
        while not over.is_set():
            began = clock.monotonic()
            over.wait(pause)
            if not over.is_set():
                worst = max(worst, clock.monotonic() - began - pause)

    watching = start(watch)
    try:
        yield lambda: worst
    finally:
        over.set()
        watching.result(HANGS)
