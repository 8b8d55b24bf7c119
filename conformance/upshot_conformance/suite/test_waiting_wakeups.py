"""Waking: whom a result wakes, that nobody is forgotten, and that nothing else wakes anybody."""

from __future__ import annotations

import asyncio
import random
import statistics
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from upshot.backend import Capabilities
from upshot.client import ResultClient
from upshot.errors import ResultTimeoutError
from upshot.record import Record
from upshot_conformance.clauses import clause
from upshot_conformance.concurrency import start, together
from upshot_conformance.fixtures import Clients, MakeHandle
from upshot_conformance.records import ended, new_id, success, unfinished, value_of
from upshot_conformance.selection import Run, Target
from upshot_conformance.suite.hearing import ByHintsOnly, Echoing, Interposing
from upshot_conformance.suite.latency import Lateness, bound, lateness_of
from upshot_conformance.timing import Timing

WAITERS = 64
RACES = 300
THREADS = 16
ROUNDS = 50


@pytest.fixture
def hearing(clients: Clients, target: Target) -> ResultClient:
    """A client that sees by notifications only, so that none can be lost and made up for."""
    return clients.open(make=lambda: ByHintsOnly.above(target.make()))


@clause("WT-3")
def test_each_of_many_waiters_on_one_id_wakes_soon(
    hearing: ResultClient,
    clients: Clients,
    second_client: ResultClient,
    handle: MakeHandle,
    target: Target,
    timing: Timing,
    capabilities: Capabilities,
) -> None:
    other = clients.open(make=lambda: ByHintsOnly.above(target.make()))
    slowest: list[float] = []
    with Lateness() as lateness:
        for task_id in [new_id() for _ in range(3)]:
            waits: list[Callable[[], object]] = []
            for each in (hearing, other):
                waits += [partial(each.wait, task_id, timeout=3 * timing.within)] * (WAITERS // 4)
                waits += [
                    partial(handle(task_id, each).get, timeout=3 * timing.within)
                    for _ in range(WAITERS // 4)
                ]
            late = lateness_of(
                waits,
                clients=[hearing, other],
                writer=second_client,
                task_id=task_id,
                timing=timing,
            )
            assert len(late) == WAITERS
            slowest.append(max(late))

    allowed = bound(capabilities, timing, lateness) + lateness.allowance(timing)
    assert statistics.median(slowest) <= allowed, f"the slowest of {WAITERS}, seconds: {slowest}"


@clause("WT-3")
def test_each_of_many_coroutines_and_callbacks_on_one_id_wakes(
    hearing: ResultClient, second_client: ResultClient, handle: MakeHandle, timing: Timing
) -> None:
    task_id = new_id()
    called: list[object] = []
    for _ in range(WAITERS // 2):
        handle(task_id, hearing).add_done_callback(lambda done: called.append(done.get(timeout=0)))

    async def wait() -> list[object]:
        waits = [handle(task_id, hearing).aget(timeout=3 * timing.within) for _ in range(WAITERS)]
        return list(await asyncio.gather(*waits))

    waiting = start(lambda: asyncio.run(wait()))
    timing.eventually(lambda: hearing.stats()["waiters"] > WAITERS)
    assert timing.throughout(lambda: not waiting.done())
    second_client.store(success(task_id, "for all"))

    assert waiting.result(3 * timing.within) == ["for all"] * WAITERS
    timing.eventually(lambda: len(called) >= WAITERS // 2)
    assert called == ["for all"] * (WAITERS // 2)


@clause("WT-3")
def test_whoever_joins_or_leaves_a_wait_does_not_stop_the_others(
    hearing: ResultClient, second_client: ResultClient, timing: Timing
) -> None:
    task_id, patience = new_id(), 3 * timing.within
    first = start(partial(hearing.wait, task_id, timeout=patience))
    timing.eventually(lambda: hearing.stats()["waiters"] == 1)
    last = start(partial(hearing.wait, task_id, timeout=patience))
    timing.eventually(lambda: hearing.stats()["waiters"] == 2)
    leaver = hearing.wait_many([new_id(), task_id], timeout=timing.jitter)
    with pytest.raises(ResultTimeoutError):
        next(leaver)
    timing.throughout(lambda: not (first.done() or last.done()))

    second_client.store(success(task_id, "still here"))

    assert value_of(first.result(patience)) == value_of(last.result(patience)) == "still here"


@clause("WT-4")
@pytest.mark.parametrize(
    "moment", ["first look", "listen", "before subscribing", "subscribe", "second look"]
)
def test_a_task_that_ends_just_after_a_step_of_the_wait_is_not_missed(
    clients: Clients, second_client: ResultClient, target: Target, timing: Timing, moment: str
) -> None:
    for value in range(3):
        task_id, layer = new_id(), Interposing.above(target.make())
        layer.act = partial(second_client.store, success(task_id, value))
        layer.moment = moment

        found = start(
            partial(clients.open(make=lambda: layer).wait, task_id, timeout=3 * timing.within)  # noqa: B023
        )
        timing.eventually(lambda: found.done() or layer.moment is None, within=timing.quiet)  # noqa: B023
        if layer.moment:  # without push nobody subscribes
            layer.passed(moment)

        assert value_of(found.result(4 * timing.within)) == value


@clause("WT-4")
@pytest.mark.parametrize("moment", ["before subscribing", "subscribe", "second look"])
def test_another_task_that_ends_just_then_is_not_missed(
    clients: Clients, second_client: ResultClient, target: Target, timing: Timing, moment: str
) -> None:
    layer = Interposing.above(target.make())
    client = clients.open(make=lambda: layer)
    for value in range(3):
        early, late = new_id(), new_id()
        waiting = start(partial(client.wait, early, timeout=3 * timing.within))
        timing.eventually(lambda: client.stats()["waiters"])
        timing.throughout(lambda w=waiting: not w.done())  # type: ignore[misc]
        layer.act = partial(second_client.store, success(early, value))
        layer.moment = moment

        other = start(partial(client.wait, late, timeout=3 * timing.within))
        timing.eventually(lambda: layer.moment is None, within=timing.quiet)
        if layer.moment:  # without push nobody subscribes
            layer.passed(moment)
        second_client.store(success(late, value))

        assert value_of(waiting.result(4 * timing.within)) == value
        assert value_of(other.result(4 * timing.within)) == value


@clause("WT-4")
def test_no_race_of_an_end_with_the_begin_of_a_wait_loses_the_end(
    hearing: ResultClient, second_client: ResultClient, run: Run, timing: Timing
) -> None:
    ids = [new_id() for _ in range(RACES)]
    barrier = threading.Barrier(2)
    draw = random.Random(run.seed)
    heads = [draw.choice([None, None, "waiter", "writer"]) for _ in ids]
    pause = threading.Event()  # never set: a wait for it is a pause of a random length

    def write() -> int:
        for task_id, head in zip(ids, heads, strict=True):
            barrier.wait(3 * timing.within)
            if head == "waiter":
                pause.wait(draw.random() * (0.001 + 2 * timing.round_trip))
            second_client.store(success(task_id, task_id))
        return len(ids)

    def wait() -> int:
        for task_id, head in zip(ids, heads, strict=True):
            barrier.wait(3 * timing.within)
            if head == "writer":
                pause.wait(0.0005)
            assert value_of(hearing.wait(task_id, timeout=3 * timing.within)) == task_id
        return len(ids)

    racing = [start(write), start(wait)]

    assert [each.result(20 * timing.within) for each in racing] == [RACES, RACES]


@clause("WT-4")
def test_waits_that_begin_amid_many_ends_miss_none_of_them(
    hearing: ResultClient, second_client: ResultClient, run: Run, timing: Timing
) -> None:
    ids = [new_id() for _ in range(400)]
    shuffled = random.Random(run.seed).sample(ids, len(ids))

    def write() -> list[str]:
        for begin in range(0, len(ids), 8):
            batch = shuffled[begin : begin + 8]
            second_client.store_many([success(task_id, task_id) for task_id in batch])
        return shuffled

    def wait(own: list[str]) -> list[str]:
        return [str(value_of(hearing.wait(task_id, timeout=3 * timing.within))) for task_id in own]

    shares = [ids[begin::8] for begin in range(8)]
    doing: list[Callable[[], list[str]]] = [write, *(partial(wait, share) for share in shares)]
    found = together(doing, within=60.0)

    assert found[1:] == shares


@clause("WT-7")
@pytest.mark.needs("intermediate")
def test_only_an_end_ends_a_wait(
    client: ResultClient, second_client: ResultClient, handle: MakeHandle, timing: Timing
) -> None:
    task_id, called = new_id(), list[object]()
    waiting = start(partial(client.wait, task_id, timeout=4 * timing.within))
    getting = start(partial(handle(task_id).get, timeout=4 * timing.within))
    handle(task_id).add_done_callback(lambda done: called.append(done.state))
    timing.eventually(lambda: client.stats()["waiters"] == 3)

    for attempt, state in enumerate(("QUEUED", "STARTED", "RETRY", "STARTED", "X-CUSTOM"), 1):
        second_client.store(unfinished(task_id, state, attempt=attempt))
        second_client.store(unfinished(new_id(), state))
        idle = timing.throughout(lambda: not (waiting.done() or getting.done() or called))
        assert idle, f"{state} ended a wait"

    second_client.store(success(task_id, "the end", attempt=5))
    assert value_of(waiting.result(4 * timing.within)) == "the end"
    assert getting.result(4 * timing.within) == "the end"
    timing.eventually(lambda: called)
    assert called == ["SUCCESS"]


@clause("WT-7")
@pytest.mark.needs("intermediate")
def test_a_wait_for_what_has_begun_already_goes_on_to_the_end(
    hearing: ResultClient, second_client: ResultClient, timing: Timing
) -> None:
    for state in ("QUEUED", "STARTED", "RETRY", "SUCCESSFUL", "success"):
        task_id = new_id()
        second_client.store(unfinished(task_id, state))
        waiting = start(partial(hearing.wait, task_id, timeout=4 * timing.within))
        timing.eventually(lambda: hearing.stats()["waiters"])
        idle = timing.throughout(lambda w=waiting: not w.done())  # type: ignore[misc]
        assert idle, f"{state} ended a wait"

        end = ended(task_id, "FAILURE")
        second_client.store(end)
        assert waiting.result(4 * timing.within) == end


@clause("WT-7")
@pytest.mark.needs("push")
@pytest.mark.parametrize("end", ["SUCCESS", "FAILURE", "REVOKED"])
def test_repeated_foreign_and_unreadable_notifications_do_no_harm(
    clients: Clients,
    second_client: ResultClient,
    target: Target,
    timing: Timing,
    end: str,
) -> None:
    client = clients.open(make=lambda: Echoing.above(target.make()))
    record, called = ended(new_id(), end), list[Any]()
    waiting = start(partial(client.wait, record.task_id, timeout=4 * timing.within))
    client.when_ended(record.task_id, called.append)
    timing.eventually(lambda: client.stats()["waiters"] == 2)

    idle = timing.throughout(lambda: not (waiting.done() or called))
    assert idle, "a notification that is no result ended a wait"
    second_client.store(record)

    assert waiting.result(4 * timing.within) == record
    timing.eventually(lambda: called)
    timing.throughout(lambda: len(called) == 1)
    assert called == [record], "a callback ran more than once, or with something else"


@clause("WT-7")
def test_each_callback_runs_once(
    client: ResultClient, second_client: ResultClient, handle: MakeHandle, timing: Timing
) -> None:
    before, after = new_id(), new_id()
    second_client.store(success(before, "before"))
    called: list[tuple[int, object]] = []

    def note(number: int, done: Any) -> None:
        called.append((number, done.get(timeout=0)))

    for number in range(4):
        handle((before, after)[number % 2]).add_done_callback(partial(note, number))
    timing.eventually(lambda: len(called) >= 2)
    assert sorted(called) == [(0, "before"), (2, "before")]
    for record in (success(after, "after"), success(after, "again"), ended(after, "FAILURE")):
        second_client.store(record)
    timing.eventually(lambda: len(called) >= 4)
    handle(after).add_done_callback(partial(note, 4))
    timing.eventually(lambda: len(called) >= 5)

    assert timing.throughout(lambda: len(called) == 5), f"called: {called}"
    assert sorted(called)[:2] == [(0, "before"), (1, "after")]
    assert sorted(called)[2:] == [(2, "before"), (3, "after"), (4, "after")]


@clause("WT-7")
def test_a_callback_that_raises_or_waits_holds_up_no_wait(
    client: ResultClient, second_client: ResultClient, handle: MakeHandle, timing: Timing
) -> None:
    first, second, third = (new_id() for _ in range(3))
    called: list[object] = []

    def ask(done: Any) -> None:
        called.append(handle(second).get(timeout=4 * timing.within))
        raise ValueError("a mistake in a callback")

    handle(first).add_done_callback(ask)
    handle(first).add_done_callback(lambda done: called.append(done.get(timeout=0)))
    second_client.store(success(first, "first"))
    waiting = start(partial(client.wait, third, timeout=4 * timing.within))
    second_client.store(success(third, "third"))
    assert value_of(waiting.result(4 * timing.within)) == "third"
    second_client.store(success(second, "second"))

    timing.eventually(lambda: len(called) >= 2)
    assert called == ["second", "first"]


@clause("WT-10")
def test_under_steady_traffic_every_wait_for_what_has_ended_returns(
    hearing: ResultClient, second_client: ResultClient, timing: Timing
) -> None:
    patience, last = 6 * timing.within, new_id()
    bystanders = [start(partial(hearing.wait, last, timeout=60.0)) for _ in range(4)]
    began = timing.eventually(lambda: hearing.stats()["waiters"] == len(bystanders))
    assert began, "a wait holds up the begin of another"
    completions: list[object] = []

    def live(number: int) -> None:
        for index in range(ROUNDS):
            task_id, value = new_id(), [number, index]
            if index % 2:  # wait for what ends meanwhile
                waiting = start(partial(hearing.wait, task_id, timeout=patience))
                second_client.store(success(task_id, value))
                record: Record = waiting.result(patience)
            else:
                hearing.store(success(task_id, value))
                record = hearing.wait(task_id, timeout=patience)
            if value_of(record) == value:
                completions.append(value)

    together([partial(live, number) for number in range(THREADS)], within=60.0)
    assert len(completions) == THREADS * ROUNDS
    assert not any(each.done() for each in bystanders)

    second_client.store(success(last, "all went home"))
    assert [value_of(each.result(patience)) for each in bystanders] == ["all went home"] * 4
