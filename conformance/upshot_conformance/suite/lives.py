"""How long a record can be read: the ways of reading, and from when to when each must find it.

Nothing here depends on how fast the machine is. A look that began after the last moment at which
a record may be seen must not find it; one that ended before its expiry must. Looks in between, and
a machine that was busy for the whole life of a record, prove nothing and accuse nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from upshot import clock
from upshot.client import ResultClient
from upshot.errors import ResultTimeoutError
from upshot.origin import Origin
from upshot.record import Record
from upshot.result import AsyncResult
from upshot.result_set import ResultSet
from upshot.states import State
from upshot_conformance.records import CODECS, new_id
from upshot_conformance.timing import Timing

__all__ = [
    "MOMENT",
    "WAYS_TO_READ",
    "Life",
    "Read",
    "by_aget",
    "by_completed_count",
    "by_get",
    "by_load",
    "by_load_many",
    "by_ready",
    "by_result",
    "by_state",
    "by_wait",
    "by_wait_async",
    "by_wait_many",
    "gone_in_time",
    "outlive",
    "store",
    "there_until",
]

MOMENT: Final = 0.1
"""Seconds to live for records whose end a test waits for: some round trips, and no long wait."""

_CLOCKS: Final = 0.05
"""Seconds that are granted beyond the declared resolution, as services count time themselves."""

_GRAIN: Final = 0.005
"""Seconds that a record may go early: services cut dates to milliseconds, and clocks are slewed."""

Read = Callable[[ResultClient, str], bool]
"""Tells whether a client finds a record under an id, without waiting."""


# -- the ways of reading; each is for a record that has ended, with a value -----------------------


def by_load(client: ResultClient, task_id: str) -> bool:
    """Read the record."""
    return client.load(task_id) is not None


def by_load_many(client: ResultClient, task_id: str) -> bool:
    """Read it amid others."""
    before, found, after = client.load_many([new_id(), task_id, new_id()])
    assert (before, after) == (None, None), "an unknown id has a record"
    return found is not None


def by_wait(client: ResultClient, task_id: str) -> bool:
    """Wait no time for it."""
    try:
        return bool(client.wait(task_id, timeout=0))
    except ResultTimeoutError:
        return False


def by_wait_many(client: ResultClient, task_id: str) -> bool:
    """Wait no time for it and for another."""
    found: list[str] = []
    with contextlib.suppress(ResultTimeoutError):
        found += (each for each, _ in client.wait_many([new_id(), task_id], timeout=0))
    return found == [task_id]


def by_wait_async(client: ResultClient, task_id: str) -> bool:
    """Wait no time for it, in a coroutine."""

    async def look() -> bool:
        async for _ in client.wait_async([task_id], timeout=0):
            return True
        return False

    try:
        return asyncio.run(look())
    except ResultTimeoutError:
        return False


def by_state(client: ResultClient, task_id: str) -> bool:
    """Ask a handle for the state."""
    return _handle(client, task_id).state != State.PENDING


def by_ready(client: ResultClient, task_id: str) -> bool:
    """Ask a handle whether the task has ended."""
    return _handle(client, task_id).ready()


def by_result(client: ResultClient, task_id: str) -> bool:
    """Ask a handle for the value."""
    return _handle(client, task_id).result is not None


def by_get(client: ResultClient, task_id: str) -> bool:
    """Get the value of a handle."""
    try:
        return _handle(client, task_id).get(timeout=0) is not None
    except ResultTimeoutError:
        return False


def by_aget(client: ResultClient, task_id: str) -> bool:
    """Get the value of a handle in a coroutine."""
    try:
        return asyncio.run(_handle(client, task_id).aget(timeout=0)) is not None
    except ResultTimeoutError:
        return False


def by_completed_count(client: ResultClient, task_id: str) -> bool:
    """Count it among the handles of a set that have ended."""
    origin = Origin(client, CODECS)
    handles = [AsyncResult[object](each, origin) for each in (new_id(), task_id)]
    return ResultSet(handles).completed_count() == 1


WAYS_TO_READ: Final[tuple[Read, ...]] = (
    by_load, by_load_many, by_wait, by_wait_many, by_wait_async, by_state, by_ready, by_result,
    by_get, by_aget, by_completed_count,
)  # fmt: skip


def _handle(client: ResultClient, task_id: str) -> AsyncResult[object]:
    """Return a new handle: one that has seen the end of its task keeps it."""
    return AsyncResult(task_id, Origin(client, CODECS))


# -- how long it lives ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Life:
    """Between which moments a record expires, in seconds on the monotonic clock.

    Attributes:
        earliest: it must be found by whoever has looked before.
        latest: it must not be found by whoever begins to look afterwards.
    """

    earliest: float
    latest: float


def store(client: ResultClient, records: Iterable[Record], seconds: float) -> Life:
    """Store records to live for `seconds`, each of which must be applied."""
    declared = client.capabilities
    resolution = declared.expiry_resolution
    assert resolution is not None, "it is declared that records can expire"
    began = clock.monotonic()
    applied = client.store_many(records, expires=seconds)
    ended = clock.monotonic()
    assert all(applied), "a record was not applied"
    return Life(
        began + seconds - _GRAIN, ended + seconds + resolution + declared.visibility + _CLOCKS
    )


def gone_in_time(look: Callable[[], object], life: Life, timing: Timing) -> None:
    """Look until nothing is found any more, and assert that it went neither too early nor late."""
    while True:
        began = clock.monotonic()
        found = look()
        ended = clock.monotonic()
        if not found:
            break
        late = began - life.latest
        assert late <= 0, f"it was found {late:.3f} s after it had to be gone"
        clock.sleep(timing.poll)
    early = life.earliest - ended
    assert early <= 0, f"it was gone {early:.3f} s before its time"


def there_until(look: Callable[[], object], life: Life, moment: float, timing: Timing) -> None:
    """Look until a moment of the monotonic clock, and assert that it is found if it must be."""
    while True:
        found = look()
        ended = clock.monotonic()
        early = life.earliest - ended
        assert found or early <= 0, f"it was gone {early:.3f} s before its time"
        if ended > min(moment, life.earliest):
            return
        clock.sleep(timing.poll)


def outlive(life: Life) -> None:
    """Wait until a record must be gone: nobody tells when it goes, and no look may help it to."""
    clock.sleep(life.latest - clock.monotonic())
