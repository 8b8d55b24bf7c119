"""Forks in every state of the parent, and many threads on one app: nobody gets a wrong answer."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.endtoend.patience import PATIENCE, comes_to
from tests.endtoend.services import Service
from upshot import App, clock
from upshot.client import ResultClient
from upshot.registry import backend_class
from upshot.url import Url
from upshot_conformance.concurrency import start
from upshot_conformance.records import success, unfinished, value_of

from .children import Child, forking_quietly
from .conftest import BROKERS, Sized
from .scoreboard import Score

CHILDREN = 4

Opener = Callable[[], ResultClient]


@pytest.fixture
def open_client(
    service: Service, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Opener]:
    """Open clients in one namespace of the test's own."""
    url = Url.parse(service.find(request, tmp_path))
    make, namespace = backend_class(url), f"fork-{uuid.uuid4().hex[:8]}"
    with ExitStack() as stack:
        yield lambda: stack.enter_context(
            ResultClient(lambda: make(url), url=url, namespace=namespace, timeout=PATIENCE)
        )


def calls(client: ResultClient, name: str, count: int) -> int:
    """Store and read `count` results, every fifth by waiting; return how many were right."""
    right = 0
    for n in range(count):
        task_id, value = f"{name}-{n}", [name, n]
        assert client.store(success(task_id, value))
        found = client.wait(task_id, timeout=PATIENCE) if n % 5 == 0 else client.load(task_id)
        right += value_of(found) == value
    return right


def in_child(client: ResultClient, number: int, count: int) -> int:
    """What a child does with its parent's client."""
    held = client.stats()
    assert held == {"keys": 0, "waiters": 0, "threads": 0, "listeners": 0}, f"inherited: {held}"
    right = calls(client, f"child-{os.getpid()}-{number}", count)
    client.close()
    return right


def judge(score: Score, reports: list[object], count: int) -> None:
    """Count what the children report."""
    for report in reports:
        score.submitted += count
        if report is None:
            score.hung += 1
        elif isinstance(report, int):
            score.executed += count
            score.recorded += report
            if report != count:
                score.surprise(f"{count - report} wrong answers in a child")
        else:
            score.surprise(f"a child failed: {report}")


@pytest.mark.experiment(7)
@pytest.mark.timeout(400)
def test_fork_after_use(open_client: Opener, score: Score, sized: Sized) -> None:
    """A server that preloads the program, serves from children, and goes on itself."""
    count, client = sized(50, 10), open_client()
    calls(client, "before", 5)
    pending = start(lambda: client.wait("pending", timeout=4 * PATIENCE))
    comes_to(lambda: client.stats()["waiters"], 1)

    children = [Child(partial(in_child, client, n, count)) for n in range(CHILDREN)]
    right = calls(client, "parent", count)
    judge(score, [child.report() for child in children], count)
    judge(score, [right], count)
    right = calls(client, "after", count)
    judge(score, [right], count)

    assert not pending.done()
    client.store(success("pending", "undisturbed"))
    assert value_of(pending.result(PATIENCE)) == "undisturbed"
    score.judge()


@pytest.mark.experiment(7)
@pytest.mark.timeout(400)
def test_forks_while_other_threads_use_everything(
    open_client: Opener, score: Score, sized: Sized, dice: random.Random
) -> None:
    """Whatever locks are held at that moment, by waits, by the hub, by writers."""
    client, over = open_client(), threading.Event()
    errors: list[Exception] = []

    def use(number: int) -> None:
        ids = [f"busy-{number}-{n}" for n in range(20)]
        while not over.is_set():
            try:
                client.store_many([unfinished(task_id) for task_id in ids])
                with pytest.raises(TimeoutError):
                    client.wait(ids[0], timeout=0.001)
                client.store_many([success(task_id, 1) for task_id in ids])
                assert [value_of(client.wait(each, timeout=PATIENCE)) for each in ids] == [1] * 20
                client.forget(ids)
            except Exception as exc:  # counted; the others go on
                errors.append(exc)

    users = [start(partial(use, n)) for n in range(4)]
    rounds = sized(10, 2)
    try:
        for _ in range(rounds):
            clock.sleep(dice.uniform(0.0, 0.05))
            children = [Child(partial(in_child, client, n, 2)) for n in range(2)]
            judge(score, [child.report() for child in children], 2)
    finally:
        over.set()
        for user in users:
            user.result(2 * PATIENCE)
    for error in errors:
        score.surprise(f"the parent was disturbed: {error!r}")
    score.judge()


@pytest.mark.experiment(7)
@pytest.mark.timeout(400)
def test_fork_in_a_coroutine(open_client: Opener, score: Score) -> None:
    """The loop, and what waits in it, stays the parent's."""
    client = open_client()
    calls(client, "before", 2)

    async def first(task_id: str) -> object:
        async for _, found in client.wait_async([task_id], timeout=PATIENCE):
            assert not isinstance(found, Exception)
            return value_of(found)
        return None

    async def forks() -> tuple[object, object]:
        waiting = asyncio.ensure_future(first("awaited"))
        while not client.stats()["waiters"]:
            await asyncio.sleep(0.001)
        child = Child(partial(in_child, client, 0, 3))
        report = await asyncio.to_thread(child.report)
        await asyncio.to_thread(client.store, success("awaited", 7))
        return report, await waiting

    report, value = asyncio.run(forks())
    judge(score, [report], 3)
    assert value == 7
    score.judge()


def echoes(app: App, count: int) -> int:
    """Submit `count` tasks and read each; return how many values are right."""
    sent = [(n, app.send_task("jobs.echo", [[os.getpid(), n]])) for n in range(count)]
    return sum(handle.get(timeout=PATIENCE) == [os.getpid(), n] for n, handle in sent)


@pytest.fixture
def service_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The broker, for `project`."""
    broker: Service = request.param
    return broker.find(request, tmp_path)


@pytest.fixture
def carried(app: App, service_url: str, monkeypatch: pytest.MonkeyPatch) -> App:
    """An app whose results come home the way that its broker has."""
    if service_url.startswith("amqp:"):
        monkeypatch.setenv("UPSHOT_RESULT_BACKEND", "rpc://")
    monkeypatch.setenv("UPSHOT_OPERATION_TIMEOUT", str(PATIENCE))
    monkeypatch.setenv("UPSHOT_WORKER_LEASE", "60")  # no attempt may be lost to a busy machine
    return app


@pytest.mark.experiment(7)
@pytest.mark.timeout(400)
@pytest.mark.parametrize("service_url", BROKERS, indirect=True)
def test_children_submit_with_their_parents_app(
    carried: App, start_worker: Callable[..., Any], score: Score, sized: Sized
) -> None:
    count = sized(50, 5)
    start_worker("-c", "1", "--threads", "8")
    echoes(carried, 2)

    children = [Child(partial(echoes, carried, count)) for _ in range(CHILDREN)]
    judge(score, [echoes(carried, count)], count)
    judge(score, [child.report() for child in children], count)
    with forking_quietly():
        context = multiprocessing.get_context("fork")
        results: Any = context.Queue()
        process = context.Process(target=lambda: results.put(echoes(carried, count)))
        process.start()
        judge(score, [results.get(timeout=2 * PATIENCE)], count)
        process.join(PATIENCE)
    if process.exitcode != 0:
        score.surprise(f"the process ended with {process.exitcode}")
    judge(score, [echoes(carried, count)], count)
    score.judge()


@pytest.mark.experiment(7)
@pytest.mark.timeout(400)
def test_many_threads_on_one_client(
    open_client: Opener, service: Service, score: Score, sized: Sized
) -> None:
    client = open_client()
    threads, count = sized(64, 16), sized(200 if service.name == "redis" else 20, 5)
    with ThreadPoolExecutor(threads) as pool:
        running = [pool.submit(calls, client, f"thread-{n}", count) for n in range(threads)]
    reports: list[object] = [each.result() for each in running]
    judge(score, reports, count)
    score.judge()
