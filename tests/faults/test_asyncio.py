"""Coroutines that are cancelled at any point; what is asked next gets its own answer."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import threading
import uuid
import warnings
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.endtoend.patience import PATIENCE, comes_to
from tests.endtoend.services import Service
from upshot import App, State, clock
from upshot.errors import ResultForgottenError, ResultTimeoutError
from upshot_conformance.records import success, unfinished

from .conftest import Sized
from .scoreboard import Score

AT_ONCE = 50  # calls that are under way together
MANY = frozenset({"memory", "redis"})  # services that are asked most

Call = Callable[[App, str], Awaitable[Any]]


@pytest.fixture
def app(service: Service, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[App]:
    """An app in a namespace of the test's own; nobody sends tasks."""
    with App(
        broker=f"memory://{uuid.uuid4().hex}",
        backend=service.find(request, tmp_path),
        namespace=f"test-{uuid.uuid4().hex[:8]}",
        no_worker_warning=None,
        operation_timeout=PATIENCE,
    ) as app:
        yield app


async def by_aget(app: App, task_id: str) -> Any:
    return await app.AsyncResult(task_id).aget(timeout=PATIENCE)


async def by_await(app: App, task_id: str) -> Any:
    return await app.AsyncResult(task_id)


async def by_async_for(app: App, task_id: str) -> Any:
    async for handle in app.ResultSet([task_id]):
        return handle.get(0)
    raise AssertionError("a set yields each of its handles")


async def by_set(app: App, task_id: str) -> Any:
    return (await app.ResultSet([task_id, task_id]).aget(timeout=PATIENCE))[0]


async def by_wait_for(app: App, task_id: str) -> Any:
    return await asyncio.wait_for(app.AsyncResult(task_id).aget(), PATIENCE)


async def by_task_group(app: App, task_id: str) -> Any:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(by_aget(app, task_id)) for _ in range(2)]
    assert tasks[0].result() == tasks[1].result()
    return tasks[0].result()


async def by_gather(app: App, task_id: str) -> Any:
    one, other = await asyncio.gather(by_await(app, task_id), by_async_for(app, task_id))
    assert one == other
    return one


CALLS: list[Call] = [
    by_aget,
    by_await,
    by_async_for,
    by_set,
    by_wait_for,
    by_task_group,
    by_gather,
]


async def cancelled_at_random(app: App, ids: list[str], dice: random.Random, score: Score) -> None:
    """Make one call for each id; cancel, or let time out, two of three at any point."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(task_id: str) -> None:
        call, fate, moment = dice.choice(CALLS), dice.randrange(3), dice.random() ** 3 * 0.05
        async with slots:
            task = asyncio.ensure_future(call(app, task_id))
            if fate == 0:
                asyncio.get_running_loop().call_later(moment, task.cancel)
            elif fate == 1:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(moment):
                        await asyncio.shield(task)
                task.cancel()
            try:
                value = await task
            except asyncio.CancelledError:
                return
        score.executed += 1
        if value == task_id:
            score.recorded += 1
        else:
            score.surprise(f"{task_id} got the answer of {value}")

    async with asyncio.TaskGroup() as group:
        for task_id in ids:
            group.create_task(one(task_id))


def expected(app: App, ids: list[str]) -> None:
    """Say that these tasks are under way, as their submission would."""
    reply_to = app.results.backend.reply_to
    records = [unfinished(task_id, State.QUEUED) for task_id in ids]
    app.results.store_encoded([app.results.encode(each, reply_to=reply_to) for each in records])


async def storing(app: App, ids: list[str], dice: random.Random) -> None:
    """End the tasks in another order, each a moment after the last one, while they are awaited."""
    order = dice.sample(ids, len(ids))
    reply_to = app.results.backend.reply_to
    for start in range(0, len(order), 20):
        records = [
            app.results.encode(success(task_id, task_id), reply_to=reply_to)
            for task_id in order[start : start + 20]
        ]
        await asyncio.to_thread(app.results.store_encoded, records)
        await asyncio.sleep(dice.random() * 0.004)


@pytest.mark.experiment(7)
@pytest.mark.timeout(400)
def test_calls_cancelled_at_any_point(
    app: App, service: Service, score: Score, sized: Sized, dice: random.Random
) -> None:
    full = 5_500 if service.name in MANY else 1_000  # 20 000 in all
    ids = [f"id-{n}" for n in range(sized(full, 200))]
    complaints: list[str] = []
    expected(app, ids)

    async def experiment() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(str(context)))
        await asyncio.gather(cancelled_at_random(app, ids, dice, score), storing(app, ids, dice))
        score.submitted = len(ids)
        # The same client, used correctly.
        for call in CALLS:
            for task_id in dice.sample(ids, 5):
                value = await call(app, task_id)
                if value != task_id:
                    score.surprise(f"{task_id} got the answer of {value} afterwards")
        gc.collect()
        deadline = clock.Deadline(PATIENCE)  # what closes an abandoned generator is a task, too
        while (left := asyncio.all_tasks() - {asyncio.current_task()}) and not deadline.expired:
            await asyncio.sleep(0.001)
        if left:
            score.surprise(f"{len(left)} tasks were left: {left}")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(experiment(), debug=False)
    for complaint in complaints:
        score.surprise(complaint)
    comes_to(lambda: app.results.stats()["waiters"], 0)
    app.results.forget(ids)
    score.judge()


@pytest.fixture
def memory() -> Iterator[App]:
    """An app whose results nobody else sees."""
    url = f"memory://{uuid.uuid4().hex}"
    with App(broker=url, backend=url, no_worker_warning=None) as app:
        yield app


@pytest.mark.experiment(7)
def test_a_loop_in_debug_mode_has_nothing_to_say(
    memory: App, score: Score, dice: random.Random, caplog: pytest.LogCaptureFixture
) -> None:
    ids = [f"id-{n}" for n in range(100)]

    async def experiment() -> None:
        asyncio.get_running_loop().slow_callback_duration = PATIENCE  # a busy machine is slow
        await asyncio.gather(
            cancelled_at_random(memory, ids, dice, score), storing(memory, ids, dice)
        )

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(experiment(), debug=True)
        gc.collect()
    score.submitted = len(ids)
    for record in caplog.records:
        if record.name == "asyncio" and record.levelno > 10:
            score.surprise(record.getMessage())
    score.judge()


@pytest.mark.experiment(7)
def test_a_loop_that_is_closed_under_its_waits(
    memory: App, score: Score, caplog: pytest.LogCaptureFixture
) -> None:
    """What comes for them later is noise to nobody, and the next loop gets its own."""
    for round_ in range(3):
        ids = [f"{round_}-{n}" for n in range(10)]
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda _, context: None)  # it says that tasks are destroyed
        tasks = [loop.create_task(by_aget(memory, task_id)) for task_id in ids]
        while memory.results.stats()["waiters"] < len(ids):
            loop.run_until_complete(asyncio.sleep(0.001))
        loop.close()
        memory.results.store_many([success(task_id, task_id) for task_id in ids[:5]])
        score.submitted += len(ids)
        assert asyncio.run(by_gather(memory, ids[0])) == ids[0]
        score.recorded += 1
        del tasks, loop
        gc.collect()
        comes_to(lambda: memory.results.stats()["waiters"], 0)
    for record in caplog.records:
        if record.name.startswith("upshot"):
            score.surprise(record.getMessage())
    score.judge()


@pytest.mark.experiment(7)
@pytest.mark.timeout(400)
def test_two_loops_in_two_threads_on_one_client(
    app: App, score: Score, sized: Sized, dice: random.Random
) -> None:
    count = sized(200, 30)
    reply_to = app.results.backend.reply_to
    wrong: list[str] = []

    async def waits(prefix: str) -> int:
        ids = [f"{prefix}-{n}" for n in range(count)]
        expected(app, ids)
        waiting = asyncio.gather(*(by_aget(app, task_id) for task_id in ids))
        for task_id in ids:
            record = app.results.encode(success(task_id, task_id), reply_to=reply_to)
            await asyncio.to_thread(app.results.store_encoded, [record])
        values = await waiting
        wrong.extend(v for v, i in zip(values, ids, strict=True) if v != i)
        return len(values)

    done: list[int] = []

    def runs(prefix: str) -> None:
        done.append(asyncio.run(waits(prefix)))

    threads = [threading.Thread(target=partial(runs, f"loop-{n}")) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * PATIENCE)
        score.hung += thread.is_alive()
    score.submitted, score.executed = 2 * count, sum(done)
    score.recorded = sum(done) - len(wrong)
    for value in wrong:
        score.surprise(f"a wrong answer: {value}")
    score.judge()


@pytest.mark.experiment(7)
def test_a_wait_that_ends_when_it_is_cancelled(memory: App, score: Score) -> None:
    """A time-out, a cancellation and the result at the same moment: one of them is seen."""

    async def experiment() -> None:
        for n in range(300):
            task_id = f"id-{n}"
            task = asyncio.ensure_future(memory.AsyncResult(task_id).aget(timeout=0.01))
            await asyncio.sleep(0.009 if n % 2 else 0.0)
            storing = asyncio.to_thread(memory.results.store, success(task_id, task_id))
            stored = asyncio.ensure_future(storing)
            await asyncio.sleep(0)
            if n % 3 == 0:
                task.cancel()
            try:
                value = await task
                assert value == task_id
                score.recorded += 1
            except (ResultTimeoutError, asyncio.CancelledError, ResultForgottenError):
                score.executed += 1
            await stored
            assert await by_aget(memory, task_id) == task_id
            score.submitted += 1

    asyncio.run(experiment())
    comes_to(lambda: memory.results.stats()["waiters"], 0)
    score.judge()
