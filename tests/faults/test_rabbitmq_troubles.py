"""What RabbitMQ alone does to its clients: alarms, heartbeats, deleted queues, lost deliveries."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.endtoend.patience import PATIENCE
from upshot import App, AsyncResult, clock
from upshot.errors import ServiceUnavailableError
from upshot_conformance.servers import RabbitMQServer, RedisServer

from .bench import QUEUE, Bench, comes_to
from .scoreboard import Score

pytestmark = [pytest.mark.wide, pytest.mark.timeout(300)]

LEASE = 4.0  # seconds; heartbeats are twice as frequent


@pytest.fixture(scope="module")
def rabbitmq() -> Iterator[RabbitMQServer]:
    """A server to be hurt."""
    with RabbitMQServer() as server:
        yield server


@pytest.fixture
def bench(rabbitmq: RabbitMQServer, redis_server: RedisServer, tmp_path: Path) -> Iterator[Bench]:
    """A caller and a worker with two processes; results are elsewhere."""
    settings = {"worker_lease": LEASE}
    with Bench(tmp_path / "bench", rabbitmq.url, redis_server.url, settings) as bench:
        bench.start_worker("-c", "2")
        bench.app.send_task("jobs.echo", ["warm-up"]).get(timeout=PATIENCE)
        yield bench


@contextlib.contextmanager
def alarm(server: RabbitMQServer) -> Generator[None]:
    """It has no memory left, and stops to read from whoever publishes."""
    server.control("set_vm_memory_high_watermark", "absolute", "1MB")
    try:
        yield
    finally:
        server.control("set_vm_memory_high_watermark", "0.4")


def count(bench: Bench, score: Score, handles: list[AsyncResult[Any]]) -> None:
    """Wait for tasks that return their position; the worker must have lived."""
    for n, handle in enumerate(handles):
        found = handle.get(timeout=PATIENCE, propagate=False)
        score.submitted += 1
        score.recorded += found == n
        score.lost += found != n
    runs = bench.ledger.runs()
    score.executed = sum(runs[handle.id] for handle in handles)
    score.duplicated = score.executed - len(handles)
    (worker,) = bench.workers
    if worker.process.poll() is not None or bench.logged("replacing it"):
        score.surprise("the worker did not live")


@pytest.mark.experiment(3)
def test_tasks_that_block_longer_than_heartbeats_keep_their_messages(
    bench: Bench, score: Score
) -> None:
    handles = [bench.app.send_task("jobs.echo", [n, 3 * LEASE]) for n in range(2)]

    count(bench, score, handles)
    if score.duplicated:
        score.surprise(f"{score.duplicated} messages were delivered again")
    score.judge()


@pytest.mark.experiment(3)
def test_an_alarm_stops_those_who_send_and_nobody_else(
    bench: Bench, rabbitmq: RabbitMQServer, score: Score
) -> None:
    gate, patience = bench.gate(), 2.0
    handles = [bench.app.send_task("jobs.behind", [str(gate), n]) for n in range(4)]
    comes_to(partial(bench.has_begun, [handle.id for handle in handles[:2]]), True)
    impatient = App(
        broker=rabbitmq.url,
        backend=bench.store,
        namespace=bench.settings["namespace"],
        operation_timeout=patience,
    )

    with impatient as app, alarm(rabbitmq):
        errors = 0
        for _ in range(3):  # the first may get through, before the alarm is heard of
            began = clock.monotonic()
            try:
                handles.append(app.send_task("jobs.echo", [len(handles)]))
            except ServiceUnavailableError:
                errors += 1
                score.remark(f"refused after {clock.monotonic() - began:.2f} of {patience:g} s")
        if not errors:
            score.surprise("messages were taken as if there were no alarm")
        gate.touch()
        for n, handle in enumerate(handles[:4]):
            if handle.get(timeout=PATIENCE) != n:
                score.surprise(f"task {n} has a wrong result")
    handles.append(bench.app.send_task("jobs.echo", [len(handles)]))

    count(bench, score, handles)
    score.judge()


@pytest.mark.experiment(3)
def test_a_queue_that_is_deleted_under_its_workers_is_made_again(
    bench: Bench, rabbitmq: RabbitMQServer, score: Score
) -> None:
    handles: list[AsyncResult[Any]] = []
    for n in range(3):
        bench.comes_to_rest()
        rabbitmq.control("delete_queue", f"{bench.settings['namespace']}/{QUEUE}")
        handles.append(bench.app.send_task("jobs.echo", [n]))

    count(bench, score, handles)
    score.judge()


@pytest.mark.experiment(3)
def test_a_delivery_that_the_server_takes_back_ends_in_one_record(
    bench: Bench, rabbitmq: RabbitMQServer, score: Score
) -> None:
    # Milliseconds: for how long a message may be unacknowledged, and how often that is looked at.
    change = "application:set_env(rabbit, consumer_timeout, {}), "
    change += "application:set_env(rabbit, channel_tick_interval, {})."
    bench.workers.pop().kill()  # its channels have the old limit
    rabbitmq.control("eval", change.format(2_000, 100))
    try:
        bench.start_worker("-c", "2")
        handles = [bench.app.send_task("jobs.echo", [n, 4.0]) for n in range(2)]
        comes_to(partial(bench.has_begun, [handle.id for handle in handles]), True)
        # The limit stays with the channels that have it: what comes again comes through others.
        rabbitmq.control("eval", change.format(1_800_000, 100))
        count(bench, score, handles)
    finally:
        rabbitmq.control("eval", change.format(1_800_000, 60_000))
    bench.comes_to_rest()
    score.judge()
