"""Release: what is given back, when, and that nothing grows."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from upshot import clock
from upshot.backend import Capabilities
from upshot.client import ResultClient
from upshot.errors import (
    ResultForgottenError,
    ResultTimeoutError,
    ServiceClosedError,
    UnsupportedError,
)
from upshot.record import Record
from upshot.states import State
from upshot_conformance import elsewhere
from upshot_conformance.clauses import clause
from upshot_conformance.concurrency import start
from upshot_conformance.fixtures import Clients, MakeHandle
from upshot_conformance.harness import Harness, UnavailableError
from upshot_conformance.records import ended, new_id, revoked, success, unfinished, value_of
from upshot_conformance.resources import open_descriptors, running_threads
from upshot_conformance.selection import Run, Target
from upshot_conformance.timing import Timing

CYCLES = 1000
CHECKPOINTS = 4
DAY = 86_400.0

# How a wait can end without a result, each given the client and an id.


def times_out(client: ResultClient, task_id: str, timing: Timing) -> None:
    with pytest.raises(ResultTimeoutError):
        client.wait(task_id, timeout=timing.jitter)


def is_left_early(client: ResultClient, task_id: str, timing: Timing) -> None:
    waiting = start(partial(list, client.wait_many([task_id, new_id()], timeout=timing.quiet)))
    with pytest.raises(ResultTimeoutError):
        waiting.result(timing.within)
    client.store(success(task_id, 1))
    ends = client.wait_many([new_id(), task_id], timeout=timing.within)
    next(ends)
    ends.close()


def is_cancelled(client: ResultClient, task_id: str, timing: Timing) -> None:
    async def cancel() -> None:
        async def wait() -> None:
            async for _ in client.wait_async([task_id], timeout=timing.within):
                pass

        waiting = asyncio.create_task(wait())
        await asyncio.wait([waiting], timeout=timing.quiet)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(cancel())


def is_forgotten(client: ResultClient, task_id: str, timing: Timing) -> None:
    waiting = start(partial(client.wait, task_id, timeout=timing.quiet))
    timing.eventually(lambda: client.stats()["waiters"])
    client.forget([task_id])
    with pytest.raises((ResultForgottenError, ResultTimeoutError)):
        waiting.result(timing.within)


def returns(client: ResultClient, task_id: str, timing: Timing) -> None:
    waiting = start(partial(client.wait, task_id, timeout=timing.within))
    timing.eventually(lambda: client.stats()["waiters"])
    client.store(success(task_id, 1))
    assert value_of(waiting.result(timing.within)) == 1


WAYS_TO_END = (returns, times_out, is_left_early, is_cancelled, is_forgotten)
EndOfWait = Callable[[ResultClient, str, Timing], None]


@clause("RL-1")
@pytest.mark.parametrize("end", WAYS_TO_END)
def test_a_wait_gives_its_slot_back_when_it(
    client: ResultClient, timing: Timing, end: EndOfWait
) -> None:
    for _ in range(3):
        end(client, new_id(), timing)

    timing.eventually(lambda: not client.stats()["keys"])
    stats = client.stats()
    assert (stats["keys"], stats["waiters"]) == (0, 0)


@clause("RL-1")
@pytest.mark.parametrize("end", WAYS_TO_END)
def test_a_wait_gives_its_subscription_back_when_it(
    client: ResultClient, timing: Timing, harness: Harness, namespace: str, end: EndOfWait
) -> None:
    for _ in range(3):
        end(client, new_id(), timing)

    timing.eventually(lambda: not harness.subscriptions(namespace))
    assert harness.subscriptions(namespace) == set()


@clause("RL-1", "RL-4")
def test_forgetting_through_a_client_releases_its_own_callbacks(
    client: ResultClient, handle: MakeHandle, timing: Timing
) -> None:
    for _ in range(20):
        asked = handle(new_id())
        asked.add_done_callback(id)  # waits without a timeout: only this can end it
        asked.forget()

    timing.eventually(lambda: not client.stats()["waiters"])
    assert client.stats()["waiters"] == 0


@clause("RL-2")
def test_forgetting_leaves_nothing_behind(
    client: ResultClient,
    second_client: ResultClient,
    handle: MakeHandle,
    harness: Harness,
    namespace: str,
    timing: Timing,
    capabilities: Capabilities,
) -> None:
    size = min(2**20, capabilities.max_record_bytes // 4)
    records = [ended(new_id(), state) for state in ("SUCCESS", "FAILURE", "REVOKED")]
    records += [unfinished(new_id(), state) for state in ("QUEUED", "STARTED", "RETRY", "CUSTOM")]
    records += [success(new_id(), "x" * size), success("x" * 255, 1), success("é a*b:c", 2)]
    awaited = new_id()
    waiting = start(partial(client.wait, awaited, timeout=timing.within))
    timing.eventually(lambda: client.stats()["waiters"])
    client.store_many([*records, success(awaited, 1)])
    waiting.result(timing.within)

    client.forget([record.task_id for record in records])
    handle(awaited).forget()

    assert harness.raw_objects(namespace) == set()
    for each in (client, second_client):
        assert each.load_many([record.task_id for record in records]) == [None] * len(records)
        assert handle(awaited, each).state == State.PENDING


@clause("RL-2")
def test_a_forgotten_id_is_pending_for_every_client(
    client: ResultClient, second_client: ResultClient, handle: MakeHandle
) -> None:
    task_id, other = new_id(), new_id()
    client.store_many([success(task_id, 1), success(other, 2)])
    assert handle(task_id, second_client).get(timeout=0) == 1

    client.forget([task_id])

    assert client.load(task_id) is None
    assert second_client.load(task_id) is None
    assert handle(task_id, second_client).state == State.PENDING
    assert value_of(second_client.load(other)) == 2


@clause("RL-2")
def test_a_forgotten_id_can_be_used_anew(client: ResultClient) -> None:
    task_id = new_id()
    client.store(revoked(task_id))
    client.forget([task_id])

    assert client.store(success(task_id, "again"))
    assert value_of(client.load(task_id)) == "again"


@clause("RL-3")
def test_forgetting_again_and_again_succeeds(client: ResultClient, handle: MakeHandle) -> None:
    done, running, unknown = new_id(), new_id(), new_id()
    client.store_many([success(done, 1), unfinished(running)])

    for _ in range(3):
        client.forget([done, running, unknown, done])
        handle(done).forget()

    assert client.load_many([done, running, unknown]) == [None, None, None]


@clause("RL-3")
@pytest.mark.needs("expiry_resolution")
def test_forgetting_an_expired_id_succeeds(
    client: ResultClient, timing: Timing, capabilities: Capabilities
) -> None:
    task_id = new_id()
    client.store(success(task_id, 1), expires=0.05)
    patience = timing.within + (capabilities.expiry_resolution or 0.0)

    timing.eventually(lambda: client.load(task_id) is None, within=patience)

    client.forget([task_id])
    assert client.load(task_id) is None


@clause("RL-4")
@pytest.mark.parametrize("before", ["unknown", "running"])
def test_a_wait_for_a_forgotten_id_ends_in_time_and_without_old_data(
    client: ResultClient, second_client: ResultClient, timing: Timing, before: str
) -> None:
    task_id = new_id()
    if before == "running":
        client.store(unfinished(task_id))
    timeout = 2 * timing.quiet
    began = clock.monotonic()
    waiting = start(partial(client.wait, task_id, timeout=timeout))
    timing.eventually(lambda: client.stats()["waiters"])

    second_client.forget([task_id])

    with pytest.raises((ResultForgottenError, ResultTimeoutError)):
        waiting.result(timing.within)
    assert clock.monotonic() - began <= timeout + max(timing.jitter, 0.5)


@clause("RL-4")
@pytest.mark.needs("expiry_resolution")
def test_a_record_that_comes_after_forgetting_expires(
    client: ResultClient, harness: Harness, namespace: str
) -> None:
    task_id = new_id()
    client.store(unfinished(task_id))
    client.forget([task_id])

    client.store(success(task_id, "too late"))

    names = harness.raw_objects(namespace)
    assert names
    assert [name for name in names if harness.ttl(name) is None] == []


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
def test_every_call_after_closing_says_so(
    clients: Clients, handle: MakeHandle, used: bool
) -> None:
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

    # The first checkpoint has what is opened once; a leak adds something per cycle.
    slack = CYCLES // CHECKPOINTS // 2
    grown = {
        name: [each[name] for each in held]
        for name in held[0]
        if held[-1][name] - held[1][name] >= (slack if name == "objects" else 3)
    }
    assert grown == {}, "what the process holds at each checkpoint"


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
