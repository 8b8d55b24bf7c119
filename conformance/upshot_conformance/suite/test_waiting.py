"""Waiting: when a wait ends, and when it gives up."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import Callable
from concurrent import futures
from functools import partial
from typing import Any

import pytest

from upshot import clock
from upshot.backend import Capabilities
from upshot.client import ResultClient
from upshot.errors import ResultTimeoutError
from upshot.record import Record
from upshot_conformance.clauses import clause
from upshot_conformance.concurrency import start, together
from upshot_conformance.fixtures import Clients, MakeHandle
from upshot_conformance.records import ended, failure, new_id, success, unfinished, value_of
from upshot_conformance.selection import Target
from upshot_conformance.suite.hearing import Interposing
from upshot_conformance.suite.latency import SAMPLES, Lateness, bound, lateness_of, returned_at
from upshot_conformance.suite.spy import Spy
from upshot_conformance.timing import Timing

STEP = 120.0
"""Seconds by which the wall clock is set; less than the suite keeps a record."""

RESOLUTION = time.get_clock_info("monotonic").resolution
"""Seconds by which two readings of one moment may differ."""

Way = Callable[[ResultClient, MakeHandle, str, float | None], object]
"""One way to wait for an id, with a timeout; returns what it got."""


def by_wait(
    client: ResultClient, handle: MakeHandle, task_id: str, timeout: float | None
) -> object:
    return value_of(client.wait(task_id, timeout=timeout))


def by_wait_many(
    client: ResultClient, handle: MakeHandle, task_id: str, timeout: float | None
) -> object:
    ((_, found),) = client.wait_many([task_id], timeout=timeout)
    assert isinstance(found, Record)
    return value_of(found)


def by_get(client: ResultClient, handle: MakeHandle, task_id: str, timeout: float | None) -> object:
    return handle(task_id, client).get(timeout=timeout)


def by_exception(
    client: ResultClient, handle: MakeHandle, task_id: str, timeout: float | None
) -> object:
    asked = handle(task_id, client)
    assert asked.exception(timeout=timeout) is None
    return asked.get(timeout=timeout)


def by_wait_async(
    client: ResultClient, handle: MakeHandle, task_id: str, timeout: float | None
) -> object:
    async def wait() -> object:
        found = [found async for _, found in client.wait_async([task_id], timeout=timeout)]
        assert len(found) == 1
        assert isinstance(found[0], Record)
        return value_of(found[0])

    return asyncio.run(wait())


def by_aget(
    client: ResultClient, handle: MakeHandle, task_id: str, timeout: float | None
) -> object:
    return asyncio.run(handle(task_id, client).aget(timeout=timeout))


WAYS: tuple[Way, ...] = (by_wait, by_wait_many, by_get, by_exception, by_wait_async, by_aget)
every_way = pytest.mark.parametrize("way", WAYS)


@clause("WT-1")
def test_the_poll_interval_that_is_declared_is_a_second_at_most(capabilities: Capabilities) -> None:
    assert 0 < capabilities.poll_interval <= 1.0


@clause("WT-1")
@pytest.mark.parametrize("way", [by_wait, by_get, by_aget])
def test_a_waiter_returns_soon_after_the_write_of_another_client(
    client: ResultClient,
    second_client: ResultClient,
    handle: MakeHandle,
    timing: Timing,
    capabilities: Capabilities,
    way: Way,
) -> None:
    with Lateness() as lateness:
        late = [
            max(
                lateness_of(
                    [partial(way, client, handle, task_id, 3 * timing.within)],
                    clients=[client],
                    writer=second_client,
                    task_id=task_id,
                    timing=timing,
                )
            )
            for task_id in [new_id() for _ in range(SAMPLES)]
        ]

    assert statistics.median(late) <= bound(capabilities, timing, lateness), f"seconds: {late}"


@clause("WT-1")
@pytest.mark.parametrize("state", ["FAILURE", "REVOKED"])
def test_a_waiter_returns_as_soon_when_the_task(
    client: ResultClient,
    second_client: ResultClient,
    timing: Timing,
    capabilities: Capabilities,
    state: str,
) -> None:
    late: list[float] = []
    with Lateness() as lateness:
        for record in [ended(new_id(), state) for _ in range(SAMPLES)]:
            second_client.store(unfinished(record.task_id))
            waiting = start(partial(returned_at, client, record.task_id, timeout=3 * timing.within))
            timing.eventually(lambda: client.stats()["waiters"])
            assert timing.throughout(lambda w=waiting: not w.done())  # type: ignore[misc]
            second_client.store(record)
            stored = clock.monotonic()
            found, at = waiting.result(3 * timing.within)
            assert found == record
            late.append(at - stored)

    assert statistics.median(late) <= bound(capabilities, timing, lateness), f"seconds: {late}"


@clause("WT-2")
@pytest.mark.parametrize("timeout", [0.05, 0.3])
def test_every_wait_gives_up_after_its_seconds(
    client: ResultClient,
    handle: MakeHandle,
    timing: Timing,
    capabilities: Capabilities,
    timeout: float,
) -> None:
    with Lateness() as lateness:
        rounds = [
            together(
                [partial(seconds_in_vain, way, client, handle, timeout) for way in WAYS],
                within=3 * timing.within,
            )
            for _ in range(3)
        ]

    late = max(lateness.allowance(timing), timeout / 10, capabilities.poll_interval)
    looks = 4 * timing.round_trip  # before and after
    for way, took in zip(WAYS, zip(*rounds, strict=True), strict=True):
        assert min(took) >= timeout - RESOLUTION, f"{way.__name__} gave up early: {took}"
        assert statistics.median(took) <= timeout + late + looks, f"{way.__name__}: {took}"


def seconds_in_vain(way: Way, client: ResultClient, handle: MakeHandle, timeout: float) -> float:
    """Return how long a wait took that gave up."""
    began = clock.monotonic()
    with pytest.raises(ResultTimeoutError):
        way(client, handle, new_id(), timeout)
    return clock.monotonic() - began


@clause("WT-2")
@every_way
def test_a_timeout_of_zero_looks_once(
    client: ResultClient, handle: MakeHandle, timing: Timing, way: Way
) -> None:
    done, running = new_id(), new_id()
    client.store_many([success(done, "there"), unfinished(running)])
    took: list[float] = []
    with Lateness() as lateness:
        for task_id in (running, new_id(), new_id(), running, running):
            began = clock.monotonic()
            with pytest.raises(ResultTimeoutError):
                way(client, handle, task_id, 0)
            took.append(clock.monotonic() - began)

    assert way(client, handle, done, 0) == "there"
    allowed = lateness.allowance(timing) + 4 * timing.round_trip
    assert statistics.median(took) <= allowed, f"seconds: {took}"


@clause("WT-2")
def test_a_timeout_of_zero_asks_the_service_once_and_subscribes_to_nothing(
    clients: Clients, target: Target
) -> None:
    spy = Spy.above(target.make())
    client = clients.open(make=lambda: spy)
    client.load(new_id())
    spy.calls.clear()

    with pytest.raises(ResultTimeoutError):
        client.wait(new_id(), timeout=0)

    assert spy.calls == ["load"]
    assert client.stats()["waiters"] == 0


@clause("WT-2")
@pytest.mark.parametrize("timeout", [None, float("inf"), 1e12], ids=["None", "infinity", "eons"])
def test_no_wait_gives_up_that_has_for_ever(
    client: ResultClient, handle: MakeHandle, timing: Timing, timeout: float | None
) -> None:
    task_id = new_id()
    waits = [start(partial(way, client, handle, task_id, timeout)) for way in WAYS]
    assert timing.eventually(lambda: client.stats()["waiters"] == len(waits)), "they gave up"
    assert timing.throughout(lambda: not any(wait.done() for wait in waits)), "one gave up"

    client.store(success(task_id, "at last"))

    assert [wait.result(3 * timing.within) for wait in waits] == ["at last"] * len(waits)


@clause("WT-2")
@every_way
def test_a_negative_timeout_is_a_value_error(
    client: ResultClient, handle: MakeHandle, way: Way
) -> None:
    done = new_id()
    client.store(success(done, 1))

    for task_id in (done, new_id()):
        for timeout in (-1, -0.001, float("-inf"), float("nan")):
            with pytest.raises(ValueError, match="timeout"):
                way(client, handle, task_id, timeout)

    assert client.stats()["waiters"] == 0


@clause("WT-2")
def test_a_handle_that_holds_its_outcome_refuses_a_negative_timeout_too(
    client: ResultClient, handle: MakeHandle
) -> None:
    record = success(new_id(), 1)
    asked = handle(record.task_id).holding(record)

    with pytest.raises(ValueError, match="timeout"):
        asked.get(timeout=-1)
    with pytest.raises(ValueError, match="timeout"):
        asked.exception(timeout=-1)
    with pytest.raises(ValueError, match="timeout"):
        asyncio.run(asked.aget(timeout=-1))


@clause("WT-2")
@pytest.mark.parametrize("step", [STEP, -STEP], ids=["forwards", "backwards"])
@pytest.mark.parametrize("way", [by_wait, by_get])
def test_a_wall_clock_that_is_set_neither_ends_a_wait_nor_prolongs_it(
    clients: Clients,
    handle: MakeHandle,
    target: Target,
    timing: Timing,
    monkeypatch: pytest.MonkeyPatch,
    way: Way,
    step: float,
) -> None:
    layer = Interposing.above(target.make())
    layer.act = partial(set_wall_clock, monkeypatch, step)
    layer.moment = "first look"
    timeout = 2 * timing.quiet

    waiting = start(
        partial(seconds_in_vain, way, clients.open(make=lambda: layer), handle, timeout)
    )

    assert waiting.result(timing.within + timeout) >= timeout - RESOLUTION
    assert layer.moment is None, "the clock was not set"


@clause("WT-2")
@pytest.mark.parametrize("step", [STEP, -STEP], ids=["forwards", "backwards"])
@pytest.mark.parametrize("way", ["wait_many", "wait_async"])
def test_a_wall_clock_that_is_set_between_two_results_changes_no_deadline(
    client: ResultClient, timing: Timing, monkeypatch: pytest.MonkeyPatch, way: str, step: float
) -> None:
    first, timeout = new_id(), 4 * timing.quiet

    def wait_many() -> None:
        for _ in client.wait_many([first, new_id()], timeout=timeout):
            set_wall_clock(monkeypatch, step)

    async def wait_async() -> None:
        async for _ in client.wait_async([first, new_id()], timeout=timeout):
            set_wall_clock(monkeypatch, step)

    def wait() -> float:
        began = clock.monotonic()
        with pytest.raises(ResultTimeoutError):
            wait_many() if way == "wait_many" else asyncio.run(wait_async())
        return clock.monotonic() - began

    waiting = start(wait)
    timing.eventually(lambda: client.stats()["waiters"])
    client.store(success(first, 1))

    assert waiting.result(timing.within + timeout) >= timeout - RESOLUTION


def set_wall_clock(monkeypatch: pytest.MonkeyPatch, step: float) -> None:
    """Let the wall clock be ahead by so many seconds from now on, for backends and for the core.

    The core keeps `time.time` as it was when it was imported.
    """
    true_time = time.time
    for place, name in ((time, "time"), (clock, "_time")):
        monkeypatch.setattr(place, name, lambda: true_time() + step)


@clause("WT-6")
@every_way
def test_a_wait_in_vain_consumes_nothing(
    client: ResultClient, second_client: ResultClient, handle: MakeHandle, timing: Timing, way: Way
) -> None:
    task_id = new_id()
    for timeout in (0, timing.jitter, 0):
        with pytest.raises(ResultTimeoutError):
            way(client, handle, task_id, timeout)

    second_client.store(success(task_id, "later"))

    assert way(client, handle, task_id, 3 * timing.within) == "later"


@clause("WT-6")
def test_a_failure_waits_for_who_gave_up_before(
    client: ResultClient, second_client: ResultClient, handle: MakeHandle, timing: Timing
) -> None:
    task_id = new_id()
    with pytest.raises(ResultTimeoutError):
        handle(task_id).get(timeout=timing.jitter)

    second_client.store(failure(task_id, KeyError("lost")))

    with pytest.raises(KeyError, match="lost"):
        handle(task_id).get(timeout=3 * timing.within)


@clause("WT-6")
def test_what_ends_while_a_wait_gives_up_is_there_for_the_next(
    client: ResultClient, second_client: ResultClient, timing: Timing
) -> None:
    for step in range(12):
        task_id = new_id()
        waiting = start(partial(outcome, client, task_id, timing.jitter / 2))
        timing.eventually(lambda: client.stats()["waiters"])
        futures.wait([waiting], timeout=timing.jitter * step / 12)
        second_client.store(success(task_id, step))

        assert waiting.result(3 * timing.within) in (step, None)
        assert value_of(client.wait(task_id, timeout=3 * timing.within)) == step


def outcome(client: ResultClient, task_id: str, timeout: float) -> Any:
    """Return the value that a wait got; None if it gave up."""
    try:
        return value_of(client.wait(task_id, timeout=timeout))
    except ResultTimeoutError:
        return None


@clause("WT-6")
@pytest.mark.needs("reread")
def test_a_wait_for_many_in_vain_loses_none_of_them(
    client: ResultClient, second_client: ResultClient, timing: Timing
) -> None:
    before, during, after = new_id(), new_id(), new_id()
    second_client.store(success(before, "before"))

    def wait() -> list[str]:
        seen: list[str] = []
        with contextlib.suppress(ResultTimeoutError):
            for task_id, _ in client.wait_many([before, during, after], timeout=timing.quiet):
                seen.append(task_id)
        return seen

    waiting = start(wait)
    timing.eventually(lambda: client.stats()["waiters"])
    second_client.store(success(during, "during"))
    seen = waiting.result(3 * timing.within)
    second_client.store(success(after, "after"))

    assert seen[:1] == [before]
    assert after not in seen
    ends = dict(client.wait_many([before, during, after], timeout=3 * timing.within))
    values = {key: value_of(each) for key, each in ends.items() if isinstance(each, Record)}
    assert values == {before: "before", during: "during", after: "after"}
