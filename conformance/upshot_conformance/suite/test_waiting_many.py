"""Waiting for very many: each once, on few connections, with few questions."""

from __future__ import annotations

import asyncio
import random
from functools import partial

import pytest

from upshot.client import ResultClient
from upshot.errors import ResultTimeoutError, UpshotError
from upshot.record import Record
from upshot_conformance.clauses import clause
from upshot_conformance.concurrency import start
from upshot_conformance.fixtures import Clients
from upshot_conformance.harness import Harness, UnavailableError
from upshot_conformance.records import new_id, success, value_of
from upshot_conformance.selection import Run, Target
from upshot_conformance.suite.hearing import ByHintsOnly
from upshot_conformance.suite.spy import Spy
from upshot_conformance.timing import Timing

MANY = 10_000
FEW = 300
SECONDS = 100.0
"""How long ten thousand results may take on a machine that does much else."""

SPARE = 8
"""Connections that more waits may open: what is bounded need not be one."""


@clause("WT-5")
@pytest.mark.needs("batch")
def test_one_wait_for_ten_thousand_ids_yields_each_once(
    clients: Clients, second_client: ResultClient, target: Target, run: Run, timing: Timing
) -> None:
    hearing = clients.open(make=lambda: ByHintsOnly.above(target.make()))
    draw = random.Random(run.seed)
    values = {new_id(): number for number in range(MANY)}
    ids = draw.sample(list(values), MANY)
    before, during = ids[: MANY // 5], ids[MANY // 5 :]
    asked = draw.sample([*ids, *ids[: MANY // 20]], MANY + MANY // 20)  # some of them twice
    end_all(second_client, before, values)

    waiting = start(lambda: list(hearing.wait_many(asked, timeout=SECONDS)))
    timing.eventually(lambda: hearing.stats()["waiters"] == len(during), within=SECONDS)
    end_all(second_client, draw.sample(during, len(during)), values)

    found = waiting.result(2 * SECONDS)
    assert len(found) == MANY, f"{len(found)} results for {MANY} ids"
    assert {task_id: whole(record) for task_id, record in found} == values
    assert hearing.stats()["keys"] == 0
    second_client.forget(ids)


def end_all(client: ResultClient, ids: list[str], values: dict[str, int]) -> None:
    """End each task with its value, some hundred at a time."""
    for begin in range(0, len(ids), 500):
        chunk = ids[begin : begin + 500]
        client.store_many([success(task_id, values[task_id]) for task_id in chunk])


def whole(found: Record | UpshotError) -> object:
    """Return the value of what a wait yielded, or the error itself."""
    return value_of(found) if isinstance(found, Record) else found


@clause("WT-5")
@pytest.mark.needs("batch")
def test_one_coroutine_that_waits_for_many_gets_each_once(
    clients: Clients, second_client: ResultClient, target: Target, run: Run, timing: Timing
) -> None:
    hearing = clients.open(make=lambda: ByHintsOnly.above(target.make()))
    values = {new_id(): number for number in range(MANY // 10)}
    ids = random.Random(run.seed).sample(list(values), len(values))
    end_all(second_client, ids[:100], values)

    async def wait() -> list[tuple[str, Record | UpshotError]]:
        return [each async for each in hearing.wait_async([*values, *ids[:50]], timeout=SECONDS)]

    waiting = start(lambda: asyncio.run(wait()))
    timing.eventually(lambda: hearing.stats()["waiters"])
    end_all(second_client, ids[100:], values)

    found = waiting.result(2 * SECONDS)
    assert len(found) == len(values)
    assert {task_id: whole(record) for task_id, record in found} == values


@clause("WT-5")
@pytest.mark.needs("batch")
def test_results_that_end_one_by_one_are_yielded_as_they_end(
    clients: Clients, second_client: ResultClient, target: Target, timing: Timing
) -> None:
    hearing = clients.open(make=lambda: ByHintsOnly.above(target.make()))
    ids = [new_id() for _ in range(30)]
    ends = hearing.wait_many([*ids, *ids], timeout=SECONDS)
    order: list[str] = []

    for task_id in ids[::-1]:
        following = start(partial(next, ends))
        second_client.store(success(task_id, task_id))
        found, record = following.result(3 * timing.within)
        assert whole(record) == found
        order.append(found)

    assert order == ids[::-1]
    assert list(ends) == []


@clause("WT-5")
@pytest.mark.needs("batch")
def test_more_awaited_ids_do_not_need_more_connections(
    clients: Clients,
    second_client: ResultClient,
    timing: Timing,
    harness: Harness,
    target: Target,
    run: Run,
) -> None:
    if not target.private or run.parallel:
        raise UnavailableError("others use the service too, so connections cannot be counted")
    client = clients.open()
    ids = [new_id() for _ in range(FEW)]
    first = start(partial(client.wait, ids[0], timeout=SECONDS))
    timing.eventually(lambda: client.stats()["waiters"])
    assert timing.throughout(lambda: not first.done())
    second_client.load(ids[0])
    before = harness.connections()

    called: list[object] = []
    for task_id in ids[1:50]:
        client.when_ended(task_id, called.append)
    rest = start(lambda: dict(client.wait_many(ids[50:], timeout=SECONDS)))
    timing.eventually(lambda: client.stats()["waiters"] == FEW)
    timing.throughout(lambda: not rest.done())
    during = harness.connections()
    end_all(second_client, ids, dict.fromkeys(ids, 1))

    assert value_of(first.result(SECONDS)) == 1
    assert [whole(each) for each in rest.result(SECONDS).values()] == [1] * (FEW - 50)
    timing.eventually(lambda: len(called) == 49)
    assert len(called) == 49
    assert during <= before + SPARE, f"{before} connections for one wait, {during} for {FEW}"


@clause("WT-5")
@pytest.mark.needs("batch")
def test_ten_thousand_ids_are_looked_at_together(
    clients: Clients, target: Target, timing: Timing
) -> None:
    spy = Spy.above(target.make())
    client = clients.open(make=lambda: spy)
    client.load(new_id())
    spy.calls.clear()

    with pytest.raises(ResultTimeoutError):
        list(client.wait_many([new_id() for _ in range(MANY)], timeout=timing.quiet))

    assert spy.calls.count("load") <= MANY // 20, "they were looked at one by one"
    assert spy.calls.count("listen") <= 1
