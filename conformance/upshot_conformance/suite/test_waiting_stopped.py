"""Waits that are stopped, and waits beside an event loop: they end, and hold up nothing."""

from __future__ import annotations

import asyncio
import contextlib
import random
import statistics
import threading
from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from upshot import clock
from upshot.client import ResultClient
from upshot.errors import ResultTimeoutError, ServiceClosedError
from upshot_conformance.clauses import clause
from upshot_conformance.concurrency import start
from upshot_conformance.fixtures import Clients, MakeHandle
from upshot_conformance.harness import Harness
from upshot_conformance.records import new_id, success, value_of
from upshot_conformance.selection import Run, Target
from upshot_conformance.suite import elsewhere
from upshot_conformance.suite.hearing import Sluggish
from upshot_conformance.suite.latency import SAMPLES, Lateness, ended_after
from upshot_conformance.timing import Timing

COROUTINES = 100
STEPS = 12
LONGEST_BLOCK = 0.05
"""Seconds; the contract's bound for what blocks an event loop."""


@clause("WT-8")
def test_coroutines_that_are_cancelled_at_any_moment_end_and_release_all(
    client: ResultClient,
    handle: MakeHandle,
    timing: Timing,
    harness: Harness,
    namespace: str,
    run: Run,
) -> None:
    draw, took = random.Random(run.seed), list[float]()

    async def wait_many() -> None:
        async for _ in client.wait_async([new_id(), new_id()], timeout=3 * timing.within):
            raise AssertionError("nothing has ended")

    async def cancel_all() -> list[bool]:
        loop = asyncio.get_running_loop()
        waits: list[asyncio.Task[object]] = []
        for number in range(COROUTINES):
            asked = handle(new_id())
            if number % 2:
                waits.append(loop.create_task(asked.aget(timeout=3 * timing.within)))
            else:
                waits.append(loop.create_task(wait_many()))

        def cancel(wait: asyncio.Task[object]) -> None:
            began = clock.monotonic()
            wait.add_done_callback(lambda _: took.append(clock.monotonic() - began))
            wait.cancel()

        for wait in waits:
            loop.call_later(draw.random() * timing.quiet, cancel, wait)
        await asyncio.wait(waits, timeout=2 * timing.within)
        # Looked at while the loop is there: who waits in a closed one is given up in any case.
        await asyncio.to_thread(timing.eventually, lambda: not client.stats()["keys"])
        assert client.stats()["waiters"] == 0, "a wait that was cancelled is still there"
        return [wait.cancelled() for wait in waits]

    with Lateness() as lateness:
        cancelled = asyncio.run(cancel_all())

    assert cancelled == [True] * COROUTINES, "a cancellation did not come through"
    assert statistics.median(took) <= lateness.allowance(timing), "seconds to end"
    assert_released(client, harness, namespace, timing)


def assert_released(client: ResultClient, harness: Harness, namespace: str, timing: Timing) -> None:
    """Assert that nothing of a client waits any more, here and on the service."""
    timing.eventually(lambda: not client.stats()["keys"])
    assert (client.stats()["keys"], client.stats()["waiters"]) == (0, 0)
    timing.eventually(lambda: not harness.subscriptions(namespace))
    assert harness.subscriptions(namespace) == set()


@clause("WT-8")
def test_a_cancellation_that_meets_the_result_is_not_swallowed(
    client: ResultClient, second_client: ResultClient, handle: MakeHandle, timing: Timing
) -> None:
    async def cancel_after(steps: int) -> None:
        task_id = new_id()
        waiting = asyncio.create_task(handle(task_id).aget(timeout=3 * timing.within))
        while not client.stats()["waiters"]:
            await asyncio.sleep(timing.poll)
        await asyncio.to_thread(second_client.store, success(task_id, steps))
        # The loop stands still here, so that the result is on its way and has not arrived.
        assert timing.eventually(lambda: not client.stats()["waiters"])
        for _ in range(steps):
            await asyncio.sleep(0)

        if waiting.cancel():
            with pytest.raises(asyncio.CancelledError):
                await waiting
        else:
            assert await waiting == steps
        assert await handle(task_id).aget(timeout=3 * timing.within) == steps

    for steps in range(STEPS):
        asyncio.run(cancel_after(steps))


@clause("WT-8")
def test_what_one_waiter_gives_up_another_still_gets(
    client: ResultClient, second_client: ResultClient, handle: MakeHandle, timing: Timing
) -> None:
    task_id, other = new_id(), new_id()

    async def wait() -> list[object]:
        waits = [asyncio.create_task(handle(task_id).aget()) for _ in range(4)]
        others = asyncio.create_task(handle(other).aget())
        while client.stats()["waiters"] < 5:
            await asyncio.sleep(timing.poll)
        for cancelled in (*waits[:2], others):
            cancelled.cancel()
        await asyncio.wait([*waits[:2], others], timeout=timing.within)
        await asyncio.to_thread(timing.eventually, lambda: client.stats()["waiters"] <= 2)
        assert client.stats()["waiters"] == 2, "those that were cancelled are still there"
        await asyncio.to_thread(second_client.store, success(task_id, "kept"))
        async with asyncio.timeout(3 * timing.within):
            return [await wait for wait in waits[2:]]

    assert asyncio.run(wait()) == ["kept", "kept"]
    assert client.stats()["waiters"] == 0


@clause("WT-8")
def test_a_timeout_of_the_loop_s_own_ends_a_wait(
    client: ResultClient, handle: MakeHandle, timing: Timing, harness: Harness, namespace: str
) -> None:
    async def wait(seconds: float) -> None:
        async with asyncio.timeout(seconds):
            await handle(new_id())

    for part in range(4):
        with pytest.raises(TimeoutError) as raised:
            asyncio.run(wait(timing.jitter * part / 4))
        assert not isinstance(raised.value, ResultTimeoutError)

    assert_released(client, harness, namespace, timing)


@clause("WT-8")
def test_closing_ends_every_kind_of_wait_soon(clients: Clients, timing: Timing) -> None:
    took: list[float] = []

    def is_closed(client: ResultClient) -> None:
        with pytest.raises(ServiceClosedError):
            client.wait(new_id(), timeout=60.0)

    def is_closed_among_many(client: ResultClient) -> None:
        assert isinstance(next(client.wait_many([new_id()]))[1], ServiceClosedError)

    with Lateness() as lateness:
        for client in [clients.open() for _ in range(SAMPLES)]:
            ways = [is_closed, is_closed, is_closed_among_many]
            waits = [start(partial(ended_after, partial(way, client))) for way in ways]
            timing.eventually(lambda c=client: c.stats()["waiters"] == 3)  # type: ignore[misc]
            assert timing.throughout(lambda w=waits: not any(each.done() for each in w))  # type: ignore[misc]
            began = clock.monotonic()
            client.close()
            took.append(max(each.result(timing.within) for each in waits) - began)

    allowed = lateness.allowance(timing) + 4 * timing.round_trip
    assert statistics.median(took) <= allowed, f"seconds to end: {took}"


@clause("WT-8")
def test_an_interrupt_from_the_keyboard_ends_a_wait_and_releases_all(
    target: Target, namespace: str, timing: Timing, harness: Harness
) -> None:
    with Lateness() as lateness:
        answer = elsewhere.run(target, namespace, "interrupt", times=2, after=timing.quiet)

    assert answer["waiters"] == 0, "an interrupted wait still holds something"
    assert answer["ended_by"] == ["KeyboardInterrupt"] * 6
    allowed = lateness.allowance(timing) + LONGEST_BLOCK
    assert statistics.median(answer["seconds"]) <= allowed, f"seconds to end: {answer['seconds']}"
    timing.eventually(lambda: not harness.subscriptions(namespace))
    assert harness.subscriptions(namespace) == set()


@clause("WT-9")
def test_no_coroutine_calls_the_backend_on_the_event_loop(
    clients: Clients,
    second_client: ResultClient,
    handle: MakeHandle,
    target: Target,
    timing: Timing,
) -> None:
    layer = Sluggish.above(target.make())
    client = clients.open(make=lambda: layer)
    done = new_id()
    second_client.store(success(done, "done"))

    async def wait() -> int:
        for timeout in (0, timing.jitter):
            with pytest.raises(ResultTimeoutError):
                await handle(new_id(), client).aget(timeout=timeout)
            with pytest.raises(ResultTimeoutError):
                async for _ in client.wait_async([new_id(), done], timeout=timeout):
                    pass
        assert await handle(done, client).aget(timeout=0) == "done"
        assert await handle(done, client) == "done"
        cancelled = asyncio.create_task(handle(new_id(), client).aget())
        await asyncio.wait([cancelled], timeout=timing.quiet)
        cancelled.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await cancelled
        return threading.get_ident()

    loop = asyncio.run(wait())

    assert layer.callers, "the backend was never asked"
    assert loop not in layer.callers, "the backend was asked on the event loop's thread"


async def longest_gap(doing: Awaitable[object]) -> float:
    """Return the longest time, in seconds, for which the event loop did nothing else meanwhile."""
    task, longest = asyncio.ensure_future(doing), 0.0
    while not task.done():
        began = clock.monotonic()
        await asyncio.sleep(0)
        await asyncio.wait([task], timeout=0.002)
        longest = max(longest, clock.monotonic() - began - 0.002)
    await task
    return longest


@clause("WT-9")
@pytest.mark.parametrize("service", ["as it is", "slow"])
def test_the_event_loop_runs_on_while_a_hundred_coroutines_wait(
    clients: Clients,
    second_client: ResultClient,
    handle: MakeHandle,
    target: Target,
    timing: Timing,
    service: str,
) -> None:
    layer = Sluggish.above(target.make())
    client = clients.open(make=lambda: layer)
    client.load(new_id())
    layer.pause = 3 * (LONGEST_BLOCK + timing.jitter) / 2 if service == "slow" else 0.0

    async def wait_for_all() -> None:
        ids = [new_id() for _ in range(COROUTINES)]
        waits = [asyncio.create_task(handle(each, client).aget(timeout=60.0)) for each in ids]
        while client.stats()["waiters"] < COROUTINES:
            await asyncio.sleep(timing.poll)
        await asyncio.to_thread(end_each, second_client, ids)
        assert await asyncio.gather(*waits) == ids

    with Lateness() as lateness:
        gaps = [asyncio.run(longest_gap(wait_for_all())) for _ in range(3)]

    allowed = LONGEST_BLOCK + max(timing.jitter, 2 * lateness.worst)
    assert statistics.median(gaps) <= allowed, f"the event loop stood still, seconds: {gaps}"


def end_each(client: ResultClient, ids: list[str]) -> None:
    """End each task with its id, one by one."""
    for task_id in ids:
        client.store(success(task_id, task_id))


@clause("WT-9")
def test_blocking_calls_under_a_running_loop_return(
    client: ResultClient, second_client: ResultClient, handle: MakeHandle, timing: Timing
) -> None:
    def end_once(waiters: int, task_id: str) -> None:
        timing.eventually(lambda: client.stats()["waiters"] >= waiters)
        second_client.store(success(task_id, task_id))

    async def block(call: Callable[[str], object]) -> None:
        task_id = new_id()
        waiting = [asyncio.create_task(handle(task_id).aget(timeout=60.0)) for _ in range(3)]
        while client.stats()["waiters"] < 3:
            await asyncio.sleep(timing.poll)
        writer = start(partial(end_once, 4, task_id))
        assert call(task_id) == task_id
        writer.result(timing.within)
        assert await asyncio.gather(*waiting) == [task_id] * 3
        with pytest.raises(ResultTimeoutError):
            client.wait(new_id(), timeout=timing.jitter)

    calls: list[Callable[[str], object]] = [
        lambda task_id: value_of(client.wait(task_id, timeout=2 * timing.within)),
        lambda task_id: handle(task_id).get(timeout=2 * timing.within),
    ]
    for call in calls:
        asyncio.run(block(call))


@clause("WT-9")
def test_waits_of_several_event_loops_do_not_meet(
    client: ResultClient, second_client: ResultClient, handle: MakeHandle, timing: Timing
) -> None:
    ids = [new_id() for _ in range(4)]

    async def wait(own: str) -> list[object]:
        asked = [handle(ids[0]), handle(own)]
        return list(await asyncio.gather(*(each.aget(timeout=3 * timing.within) for each in asked)))

    loops = [start(lambda own=own: asyncio.run(wait(own))) for own in ids]  # type: ignore[misc]
    timing.eventually(lambda: client.stats()["waiters"] == 2 * len(ids))
    end_each(second_client, ids[::-1])

    assert [each.result(4 * timing.within) for each in loops] == [[ids[0], own] for own in ids]
