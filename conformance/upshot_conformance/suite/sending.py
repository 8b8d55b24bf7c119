"""Results that one client stores for another, and everything that waits for them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Final

from upshot.client import ResultClient
from upshot.errors import ServiceUnavailableError, UpshotError
from upshot.record import Record
from upshot.states import State
from upshot_conformance.concurrency import start
from upshot_conformance.records import new_id, success, unfinished, value_of
from upshot_conformance.timing import Timing

__all__ = [
    "Found",
    "Waits",
    "assert_works",
    "everybody_waits",
    "store_for",
    "submitted",
    "values",
    "wait_in_a_loop",
]

Found = Mapping[str, Record | UpshotError]
"""What a wait has brought, by id."""

Waits = list[Future[Found]]
"""One for each way of waiting."""


def submitted(client: ResultClient, count: int = 1) -> list[str]:
    """Return new ids of which `client` is to get the results, as one that has sent the tasks."""
    ids = [new_id() for _ in range(count)]
    if client.backend.reply_to:  # from then on a service that carries results has a place for them
        client.store_many([unfinished(task_id, State.QUEUED) for task_id in ids])
    return ids


def store_for(
    reader: ResultClient, by: ResultClient, results: Mapping[str, object]
) -> Sequence[bool]:
    """Store values as a worker does that runs the tasks which `reader` has sent."""
    records = [success(task_id, value) for task_id, value in results.items()]
    reply_to = reader.backend.reply_to
    return by.store_encoded([by.encode(record, reply_to=reply_to) for record in records])


def everybody_waits(
    client: ResultClient, ids: Sequence[str], timing: Timing, *, timeout: float, ended: int = 0
) -> Waits:
    """Wait for all ids in every way there is; return once the waits have begun.

    Args:
        client: it has no other waits.
        ids: what to wait for.
        timing: of this run.
        timeout: seconds.
        ended: how many of the ids have ended already, so that nobody waits for them for long.
    """
    waits = [start(partial(way, client, ids, timeout)) for way in _WAYS]
    begun = 3 * (len(ids) - ended) + 1  # one way waits for a single id at a time
    timing.eventually(lambda: client.stats()["waiters"] >= begun or any(w.done() for w in waits))
    return waits


def values(waits: Waits, within: float) -> list[dict[str, object]]:
    """Return what each wait has brought: values, and the names of errors.

    Raises:
        AssertionError: a wait did not end.
    """
    found: list[Found] = []
    for wait in waits:
        error = wait.exception(within)
        assert error is None, f"a wait ended with {error!r}"
        found.append(wait.result())
    return [{key: _told(each) for key, each in answer.items()} for answer in found]


def wait_in_a_loop(client: ResultClient, task_id: str, *, timeout: float) -> None:
    """Wait for one id in a coroutine; raises what the wait does."""

    async def wait() -> None:
        async for _ in client.wait_async([task_id], timeout=timeout):
            pass

    asyncio.run(wait())


def assert_works(client: ResultClient, timing: Timing) -> None:
    """Assert that a client can store, load, wait and forget again, after some attempts."""
    failures: list[str] = []

    def live() -> bool:
        (task_id,) = submitted(client)
        try:
            client.store(success(task_id, "as before"))
            loaded = value_of(client.load(task_id))
            waited = value_of(client.wait(task_id, timeout=timing.within))
            client.forget([task_id])
            gone = client.load(task_id)
        except ServiceUnavailableError as exc:
            failures.append(str(exc))
            return False
        assert (loaded, waited, gone) == ("as before", "as before", None)
        return True

    assert timing.eventually(live, within=2 * timing.within), (
        f"the client does not work again after {len(failures)} attempts: {failures[-1:]}"
    )


def _told(found: Record | UpshotError) -> object:
    return value_of(found) if isinstance(found, Record) else type(found).__name__


def _one_by_one(client: ResultClient, ids: Sequence[str], timeout: float) -> Found:
    found: dict[str, Record | UpshotError] = {}
    for task_id in ids:
        try:
            found[task_id] = client.wait(task_id, timeout=timeout)
        except UpshotError as exc:
            found[task_id] = exc
    return found


def _together(client: ResultClient, ids: Sequence[str], timeout: float) -> Found:
    found: dict[str, Record | UpshotError] = {}
    try:
        found.update(client.wait_many(ids, timeout=timeout))
    except UpshotError as exc:
        found.update({task_id: exc for task_id in ids if task_id not in found})
    return found


def _in_a_loop(client: ResultClient, ids: Sequence[str], timeout: float) -> Found:
    found: dict[str, Record | UpshotError] = {}

    async def wait() -> None:
        async for ended in client.wait_async(ids, timeout=timeout):
            found.update([ended])

    try:
        asyncio.run(wait())
    except UpshotError as exc:
        found.update({task_id: exc for task_id in ids if task_id not in found})
    return found


def _by_callbacks(client: ResultClient, ids: Sequence[str], timeout: float) -> Found:
    found: dict[str, Record | UpshotError] = {}
    complete = threading.Event()

    def take(task_id: str, each: Record | UpshotError) -> None:
        found[task_id] = each
        if len(found) == len(ids):
            complete.set()

    for task_id in ids:
        client.when_ended(task_id, partial(take, task_id))
    complete.wait(timeout)
    return dict(found)


_WAYS: Final[Sequence[Callable[[ResultClient, Sequence[str], float], Found]]] = (
    _one_by_one,
    _together,
    _in_a_loop,
    _by_callbacks,
)
