"""What a worker leaves behind that is gone, paused or replaced, and how it is taken up again."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest

from tests.conftest import Worker
from tests.endtoend.patience import PATIENCE, comes_to
from tests.endtoend.services import SERVICES, Service
from upshot import AsyncResult, clock
from upshot.broker import Delivery
from upshot.errors import ResultTimeoutError, ServiceError
from upshot.registry import broker_class
from upshot.request import Request
from upshot_conformance.proxy import Proxy
from upshot_conformance.servers import RedisServer

from .bench import QUEUE, Bench
from .conftest import Sized
from .scoreboard import Score

LEASE: Final = 2.0
SETTINGS: Final = {"worker_lease": LEASE, "task_max_deliveries": 1000}
BROKERS: Final = [each for each in SERVICES if each.broker]
ROLLING: Final = [
    pytest.param(each, id=each.broker, marks=() if each.broker == "redis" else pytest.mark.wide)
    for each in BROKERS
]
OnEach: TypeAlias = Callable[[Callable[[Bench, Score], None]], None]


def bench_of(service: Service, request: pytest.FixtureRequest, folder: Path) -> Bench:
    """Return a bench with this broker; results are kept by the same service, or else in Redis."""
    url = service.find(request, folder)
    redis: RedisServer = request.getfixturevalue("redis_server")
    store = redis.url if service.broker == "amqp" else url
    return Bench(folder / f"bench-{service.broker}", url, store, SETTINGS)


@pytest.fixture
def on_each(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OnEach]:
    """Do something on all brokers at the same time, and judge each."""
    with ExitStack() as stack, ThreadPoolExecutor(len(BROKERS)) as pool:
        benches = {
            service.broker: stack.enter_context(bench_of(service, request, tmp_path))
            for service in BROKERS
        }
        # Only now, so that the time it takes to start servers does not count.
        new_score: Callable[[str], Score] = request.getfixturevalue("new_score")

        def on_each(experiment: Callable[[Bench, Score], None]) -> None:
            scores = {name: new_score(name) for name in benches}
            done = [pool.submit(experiment, benches[name], scores[name]) for name in benches]
            for each in done:
                each.result()
            for score in scores.values():
                score.judge()

        yield on_each


def count(score: Score, bench: Bench, handles: list[AsyncResult[Any]]) -> None:
    """Wait for the outcomes, which are the numbers of the tasks, and count."""
    score.submitted = len(handles)
    for number, handle in enumerate(handles):
        try:
            value = handle.get(timeout=PATIENCE)
        except ResultTimeoutError:
            score.lost += 1
            break  # the others would not come either
        score.recorded += 1
        if value[0] != number:
            score.surprise(f"task {number} has {value!r}")
    score.executed = sum(bench.ledger.runs().values())
    score.duplicated = bench.ledger.repeated()


def pause(bench: Bench, group: int) -> None:
    """Stop a group of processes where none of them holds a lock that others wait for."""
    while True:
        os.killpg(group, signal.SIGSTOP)
        try:
            bench.app.broker.call(
                lambda broker, _: broker.beat("probe", [QUEUE], [], lease=LEASE, timeout=1.0)
            )
        except ServiceError:
            os.killpg(group, signal.SIGCONT)
            clock.sleep(0.05)
        else:
            return


@pytest.mark.experiment(1)
@pytest.mark.timeout(300)
def test_a_worker_that_slept_past_its_lease_is_fenced(on_each: OnEach) -> None:
    on_each(_sleep_past_a_lease)


def _sleep_past_a_lease(bench: Bench, score: Score) -> None:
    gate = bench.gate()
    handle = bench.app.send_task("jobs.behind", [str(gate), "done"])
    sleeper = bench.start_worker("-c", "1")
    comes_to(lambda: bench.ledger.count() > 0, True)
    pause(bench, sleeper.process.pid)
    twin = bench.start_worker("-c", "1")
    comes_to(lambda: bench.ledger.count() > 1, True)
    names = {pid: worker.process.pid for worker in (sleeper, twin) for pid in worker.children()}

    os.killpg(sleeper.process.pid, signal.SIGCONT)
    gate.touch()

    value, worker = handle.get(timeout=PATIENCE), handle.worker
    comes_to(lambda: "not stored: it had ended already" in sleeper.output(), True)
    runs = bench.ledger.entries()
    score.submitted, score.executed, score.recorded = 1, len(runs), 1
    score.duplicated = bench.ledger.repeated()
    # Of a task that runs twice at a time, it is the later run whose outcome counts.
    if (value, handle.attempts) != ("done", len(runs)) or handle.worker != worker:
        score.surprise(f"{value!r} in attempt {handle.attempts} of {len(runs)}, by {handle.worker}")
    if f":{names[runs[-1].pid]}/" not in str(worker):
        score.surprise(f"the outcome is that of {worker}, runs were {runs}")
    if len(bench.logged("runs again")) < score.duplicated:
        score.surprise("a second run was not logged")
    if twin.stop(PATIENCE):
        score.surprise("the twin did not stop in order")
    later = bench.app.send_task("jobs.run", [1])  # and it goes on as if nothing had been
    if later.get(timeout=PATIENCE)[1] != runs[0].pid:
        score.surprise("another process ran the next task")
    score.remark(f"taken over {runs[1].moment - runs[0].moment:.1f} s after it began")


@pytest.mark.experiment(1)
@pytest.mark.timeout(300)
@pytest.mark.parametrize("service", ROLLING)
def test_a_rolling_restart(
    request: pytest.FixtureRequest, tmp_path: Path, score: Score, sized: Sized, service: Service
) -> None:
    with bench_of(service, request, tmp_path) as bench:
        _restart_in_turn(bench, score, tasks=sized(600, 150), restarts=sized(4, 2))
    score.judge()


def _restart_in_turn(bench: Bench, score: Score, *, tasks: int, restarts: int) -> None:
    handles: list[AsyncResult[Any]] = []
    running = bench.start_worker("-c", "2")
    codes: list[int] = []
    for _ in range(restarts + 1):
        more = range(len(handles), len(handles) + tasks // (restarts + 1))
        handles += bench.app.send([Request(name="jobs.run", args=[n, 0.02]) for n in more])
        comes_to(partial(_has_run, bench, running), True)
        fresh = bench.start_worker("-c", "2")
        comes_to(partial(_has_children, fresh, 2), True)
        codes.append(running.stop(PATIENCE))
        running = fresh
    count(score, bench, handles)
    codes.append(running.stop(PATIENCE))

    if any(codes):
        score.surprise(f"workers ended with {codes}")
    if score.duplicated > len(bench.logged("runs again")):
        score.surprise("a second run was not logged")
    score.remark(f"{restarts + 1} restarts")


def _has_run(bench: Bench, worker: Worker) -> bool:
    return not {entry.pid for entry in bench.ledger.entries()}.isdisjoint(worker.children())


def _has_children(worker: Worker, count: int) -> bool:
    return len(worker.children()) == count


def _has_lost(proxy: Proxy, count: int) -> bool:
    return proxy.accepted > 0 and proxy.dropped >= count


@pytest.mark.experiment(1)
@pytest.mark.timeout(300)
def test_thousands_of_leases_of_the_dead(on_each: OnEach, sized: Sized) -> None:
    on_each(partial(_take_over, tasks=sized(3000, 200)))


def _take_over(bench: Bench, score: Score, *, tasks: int) -> None:
    handles = list(bench.app.send([Request(name="jobs.run", args=[n]) for n in range(tasks)]))
    leased = _lease_all(bench, tasks)
    began = clock.monotonic()
    bench.start_worker("-c", "2")

    count(score, bench, handles)

    score.remark(f"{leased} leases taken over in {clock.monotonic() - began:.1f} s")
    bench.comes_to_rest()


def _lease_all(bench: Bench, tasks: int) -> int:
    """Lease every message to a worker that is never heard of again; return how many there were."""
    url = bench.app.broker_url
    lost: list[Delivery] = []
    with closing(broker_class(url)(url, bench.settings["namespace"])) as broker:
        while len(lost) < tasks:
            lost += broker.fetch([QUEUE], limit=tasks, wait=1.0, lease=LEASE, worker="gone")
    return len(lost)


@pytest.mark.experiment(1)
@pytest.mark.timeout(300)
def test_answers_to_fetches_are_lost(
    redis_server: RedisServer, tmp_path: Path, score: Score, sized: Sized
) -> None:
    tasks, losses = sized(300, 60), sized(100, 12)
    url = redis_server.url
    port = int(url.rpartition(":")[2].partition("/")[0])
    with (
        Proxy("127.0.0.1", port) as proxy,
        Bench(tmp_path / "bench", url, url, SETTINGS) as bench,
    ):
        handles = list(bench.app.send([Request(name="jobs.run", args=[n]) for n in range(tasks)]))
        bench.broker = url.replace(f":{port}", f":{proxy.port}")  # for the worker
        bench.start_worker("-c", "4")
        for loss in range(losses):
            comes_to(partial(_has_lost, proxy, loss), True)
            proxy.lose_answer(after=loss % 3)

        count(score, bench, handles)

        score.remark(f"{proxy.dropped} answers lost")
        bench.broker = url
        bench.comes_to_rest()
        score.judge()
