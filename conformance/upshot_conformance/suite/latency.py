"""How long whoever waits is kept waiting, and how much of that is the machine's doing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from upshot import clock
from upshot.backend import Capabilities
from upshot.client import ResultClient
from upshot.record import Record
from upshot_conformance.concurrency import start
from upshot_conformance.records import success
from upshot_conformance.timing import Timing

__all__ = ["SAMPLES", "Lateness", "bound", "ended_after", "lateness_of", "returned_at"]

SAMPLES: Final = 5
"""A bound is held against the median of so many samples, never against one."""

_PUSHED: Final = 0.1  # seconds; the contract's bound for a backend that pushes
_TICK: Final = 0.005  # seconds between two looks at how late this machine is
_HOPS: Final = 4  # who must run, one after the other: writer, service, hub, waiter


class Lateness:
    """Watches, while it is entered, how late this machine wakes who has slept enough.

    Attributes:
        worst: seconds; how late it was at worst.
    """

    worst: float

    def __init__(self) -> None:
        self.worst = 0.0
        self._over = threading.Event()

    def __enter__(self) -> Lateness:
        self._watch = start(self._run)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watch.result()

    def allowance(self, timing: Timing) -> float:
        """Return the seconds that this machine may add to what passes through several hands."""
        return max(timing.jitter, _HOPS * self.worst)

    def _run(self) -> None:
        began = clock.monotonic()
        while not self._over.wait(_TICK):
            now = clock.monotonic()
            self.worst = max(self.worst, now - began - _TICK)
            began = now


def bound(capabilities: Capabilities, timing: Timing, lateness: Lateness) -> float:
    """Return the seconds after a write within which WT-1 wants a waiter to return."""
    promised = _PUSHED if capabilities.push else capabilities.poll_interval
    return promised + 2 * timing.round_trip + lateness.allowance(timing)


def ended_after(wait: Callable[[], object]) -> float:
    """Wait; return when the wait was over, on the monotonic clock."""
    wait()
    return clock.monotonic()


def returned_at(client: ResultClient, task_id: str, timeout: float) -> tuple[Record, float]:
    """Return what a wait returned, and when."""
    return client.wait(task_id, timeout=timeout), clock.monotonic()


def lateness_of(
    waits: Sequence[Callable[[], object]],
    *,
    clients: Sequence[ResultClient],
    writer: ResultClient,
    task_id: str,
    timing: Timing,
) -> list[float]:
    """Let all wait for one id, end it, and return for each wait how many seconds later it ended.

    Args:
        waits: what blocks until the task has ended.
        clients: whose waits they are.
        writer: who ends the task, once all have waited for a while.
        task_id: which task.
        timing: the time knobs.
    """
    running = [start(partial(ended_after, wait)) for wait in waits]
    waiting = timing.eventually(
        lambda: sum(each.stats()["waiters"] for each in clients) >= len(waits)
    )
    assert waiting, "some of the waits never began"
    idle = timing.throughout(lambda: not any(each.done() for each in running))
    assert idle, "a wait ended before its task"
    writer.store(success(task_id, "ended"))
    stored = clock.monotonic()
    return [max(0.0, each.result(3 * timing.within) - stored) for each in running]
