"""Closing, dropping and expiring: nothing stays open, nothing grows, nothing is kept for ever."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from upshot import clock
from upshot.client import ResultClient
from upshot.errors import (
    ResultTimeoutError,
    ServiceClosedError,
    UnsupportedError,
)
from upshot.record import Record
from upshot.states import State
from upshot_conformance.clauses import clause
from upshot_conformance.concurrency import start
from upshot_conformance.fixtures import Clients, MakeHandle
from upshot_conformance.harness import Harness, UnavailableError
from upshot_conformance.records import ended, new_id, success, unfinished
from upshot_conformance.resources import open_descriptors, running_threads
from upshot_conformance.selection import Run, Target
from upshot_conformance.suite import elsewhere
from upshot_conformance.suite.waits import returns, times_out
from upshot_conformance.timing import Timing

CYCLES = 1000
CHECKPOINTS = 4
DAY = 86_400.0


@clause("RL-5")
def test_closing_twice_succeeds_and_ends_what_waits(clients: Clients, timing: Timing) -> None:
    client = clients.open()
    waits = [start(partial(client.wait, new_id(), timeout=60)) for _ in range(4)]
    timing.eventually(lambda: client.stats()["waiters"] == len(waits))

    client.close()
    client.close()

    for wait in waits:
        with pytest.raises(ServiceClosedError):
            wait.result(timing.within)


@clause("RL-5")
def test_a_coroutine_that_waits_is_ended_by_closing(clients: Clients, timing: Timing) -> None:
    client = clients.open()

    async def wait() -> object:
        waiting = asyncio.create_task(anext(client.wait_async([new_id()], timeout=60)))
        while not client.stats()["waiters"]:
            await asyncio.sleep(timing.poll)
        await asyncio.to_thread(client.close)
        return (await asyncio.wait_for(waiting, timing.within))[1]

    assert isinstance(asyncio.run(wait()), ServiceClosedError)


@clause("RL-5")
@pytest.mark.parametrize("used", [True, False], ids=["used", "unused"])
def test_every_call_after_closing_says_so(clients: Clients, handle: MakeHandle, used: bool) -> None:
    client = clients.open()
    if used:
        client.load(new_id())
    client.close()
    calls: list[Callable[[], object]] = [
        partial(client.load, new_id()),
        partial(client.load_many, [new_id()]),
        partial(client.store, success(new_id(), 1)),
        partial(client.store_many, [success(new_id(), 1)]),
        partial(client.forget, [new_id()]),
        partial(client.wait, new_id(), timeout=0),
        partial(client.wait, new_id(), timeout=60),
        partial(handle(new_id(), client).get, timeout=60),
        partial(handle(new_id(), client).ready),
    ]

    for call in calls:
        with pytest.raises(ServiceClosedError):
            call()


@clause("RL-5")
def test_closing_gives_back_descriptors_and_threads(clients: Clients, timing: Timing) -> None:
    use_and_close(clients, timing)  # what the driver opens once per process stays open
    descriptors, threads = open_descriptors(), running_threads()

    for _ in range(5):
        use_and_close(clients, timing)

    timing.eventually(
        lambda: len(open_descriptors()) <= len(descriptors) and running_threads() <= threads
    )
    assert running_threads() <= threads
    assert len(open_descriptors()) <= len(descriptors), open_descriptors() - descriptors


def use_and_close(clients: Clients, timing: Timing) -> None:
    """Open a client, store, load, wait for two ids and time out, from two threads; close it."""
    client = clients.open()
    returns(client, new_id(), timing)
    times_out(client, new_id(), timing)
    client.close()


@clause("RL-5")
def test_closing_gives_back_the_server_s_connections(
    clients: Clients, timing: Timing, harness: Harness, target: Target, run: Run
) -> None:
    if not target.private or run.parallel:
        raise UnavailableError("others use the service too, so connections cannot be counted")
    before = harness.connections()
    opened = [clients.open() for _ in range(5)]
    for client in opened:
        returns(client, new_id(), timing)
    if harness.over_network and not timing.eventually(lambda: harness.connections() > before):
        raise UnavailableError("the harness does not see the connections of five open clients")

    for client in opened:
        client.close()

    timing.eventually(lambda: harness.connections() <= before)
    assert harness.connections() <= before


def submit_wait_forget(client: ResultClient, handle: MakeHandle) -> None:
    task_id = new_id()
    client.store(unfinished(task_id, State.QUEUED))
    with handle(task_id) as asked:
        client.store(success(task_id, task_id))
        assert asked.get(timeout=60) == task_id


def time_out(client: ResultClient, handle: MakeHandle) -> None:
    with pytest.raises(ResultTimeoutError):
        handle(new_id()).get(timeout=0.0005)


def never_read(client: ResultClient, handle: MakeHandle) -> None:
    asked = handle(new_id())
    client.store(success(asked.id, 1))
    client.forget([asked.id])


@clause("RL-6")
@pytest.mark.parametrize("cycle", [submit_wait_forget, time_out, never_read])
def test_nothing_grows_over_a_thousand_cycles_of(
    client: ResultClient,
    handle: MakeHandle,
    timing: Timing,
    cycle: Callable[[ResultClient, MakeHandle], None],
) -> None:
    held: list[dict[str, int]] = []
    for _ in range(CHECKPOINTS):
        for _ in range(CYCLES // CHECKPOINTS):
            cycle(client, handle)
        timing.eventually(lambda: not client.stats()["keys"])
        held.append(holdings(client))

    assert grown(held) == {}, "what the process holds at each checkpoint"


def grown(held: Sequence[dict[str, int]]) -> dict[str, list[int]]:
    """Return what grew from checkpoint to checkpoint: a leak does each time, a cache once."""
    found: dict[str, list[int]] = {}
    for name in held[0]:
        # The first checkpoint has what is opened once.
        seen = [each[name] for each in held]
        rises = [after - before for before, after in pairwise(seen[1:])]
        slack = CYCLES // CHECKPOINTS // 2 if name == "objects" else 3
        if sum(rises) >= slack and min(rises) >= slack // 2:
            found[name] = seen
    return found


def holdings(client: ResultClient) -> dict[str, int]:
    """Count what this process and the client hold."""
    gc.collect()
    counts = {"threads": len(running_threads()), "objects": len(gc.get_objects())}
    with contextlib.suppress(UnavailableError):
        counts["descriptors"] = len(open_descriptors())
    return counts | {name: count for name, count in client.stats().items() if name != "threads"}


@clause("RL-6")
def test_the_service_holds_nothing_after_many_cycles(
    client: ResultClient, handle: MakeHandle, timing: Timing, harness: Harness, namespace: str
) -> None:
    for cycle in (submit_wait_forget, time_out, never_read):
        for _ in range(50):
            cycle(client, handle)

    assert harness.raw_objects(namespace) == set()
    timing.eventually(lambda: not harness.subscriptions(namespace))
    assert harness.subscriptions(namespace) == set()


@clause("RL-7")
def test_an_interpreter_with_everything_open_exits_in_silence(
    target: Target, namespace: str
) -> None:
    began = clock.monotonic()

    elsewhere.run(target, namespace, "leave_everything_open")  # asserts code and silence

    assert clock.monotonic() - began < elsewhere.SECONDS / 2


@clause("RL-7")
def test_dropping_handles_and_clients_raises_nothing_and_asks_nobody(
    clients: Clients, handle: MakeHandle, timing: Timing, monkeypatch: pytest.MonkeyPatch
) -> None:
    complaints: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    client = clients.open()
    handles = [handle(new_id(), client) for _ in range(100)]
    client.store_many([success(each.id, 1) for each in handles])
    client.close()
    began = clock.monotonic()

    handles.clear()
    gc.collect()

    assert clock.monotonic() - began < 1.0 + timing.jitter
    assert complaints == []


@clause("RL-8")
@pytest.mark.needs("expiry_resolution")
def test_every_server_object_expires_by_default(
    clients: Clients, harness: Harness, namespace: str, timing: Timing
) -> None:
    client = clients.open(default_expiry=True)
    records: list[Record] = [ended(new_id(), s) for s in ("SUCCESS", "FAILURE", "REVOKED")]
    records += [unfinished(new_id(), state) for state in ("QUEUED", "STARTED", "RETRY", "CUSTOM")]
    client.store_many(records)
    client.store(success(records[-1].task_id, 1))
    returns(client, new_id(), timing)

    left = {name: harness.ttl(name) for name in harness.raw_objects(namespace)}

    assert len(left) >= len(records)
    for name, seconds in left.items():
        assert seconds is not None, f"{name} is kept for ever"
        assert DAY - 60 < seconds <= DAY + 2


@clause("RL-8")
@pytest.mark.lacks("expiry_resolution")
def test_an_expiry_that_cannot_be_kept_is_refused(client: ResultClient) -> None:
    task_id = new_id()

    with pytest.raises(UnsupportedError):
        client.store(success(task_id, 1), expires=60)

    assert client.load(task_id) is None
