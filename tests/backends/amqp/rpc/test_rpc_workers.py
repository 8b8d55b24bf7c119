"""Real workers as processes, whose results come home as messages."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from upshot import App, State, clock
from upshot.engine.job import Job
from upshot.errors import WorkerLostError
from upshot.record import Record
from upshot_conformance.servers import RabbitMQServer

StartWorker = Callable[..., Any]
Eventually = Callable[[Callable[[], bool]], None]
IsThere = Callable[[str], bool]

TWICE = """

@app.task
def twice(x: int) -> int:
    return 2 * add.delay(x, 0).get(timeout=60)
"""

PATIENCE = 90.0
"""Seconds for a task on a busy machine, or for one whose worker was killed."""


@pytest.fixture
def service_url(server: RabbitMQServer) -> str:
    return server.url.replace("amqp:", "pyamqp:")


@pytest.fixture
def project(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The common project, with results over the broker's connection."""
    monkeypatch.setenv("UPSHOT_RESULT_BACKEND", "rpc://")
    with (project / "jobs.py").open("a") as file:
        file.write(TWICE)
    return project


@pytest.fixture
def app(project: Path) -> Iterator[App]:
    """The caller's side: an app that knows the tasks by name only."""
    with App() as app:
        yield app


def test_values_failures_and_tracebacks_come_home(app: App, start_worker: StartWorker) -> None:
    start_worker("-c", "2")
    value, failure = app.send_task("jobs.add", [2, 3]), app.send_task("jobs.fail", [402])

    assert value.get(timeout=PATIENCE) == 5
    assert value.get(timeout=0) == 5
    assert app.AsyncResult(value.id).get(timeout=0) == 5
    assert (value.state, value.attempts, bool(value.worker)) == (State.SUCCESS, 1, True)
    found = failure.get(timeout=PATIENCE, propagate=False)
    assert "as asked" in str(found)
    assert failure.traceback is not None
    assert "in fail" in failure.traceback


def test_hundreds_of_results_come_home(app: App, start_worker: StartWorker) -> None:
    start_worker("-c", "2", "--threads", "2")
    handles = [app.send_task("jobs.add", [number, 1]) for number in range(300)]

    assert [handle.get(timeout=PATIENCE) for handle in handles] == list(range(1, 301))


def test_a_task_waits_for_a_task_of_its_own(app: App, start_worker: StartWorker) -> None:
    start_worker("-c", "2")

    assert app.send_task("jobs.twice", [21]).get(timeout=PATIENCE) == 42


def test_a_handle_is_refused_at_once_in_any_other_process(
    app: App, start_worker: StartWorker, project: Path
) -> None:
    start_worker("-c", "1")
    handle = app.send_task("jobs.add", [2, 3])
    handle.get(timeout=PATIENCE)
    program = "import sys; from upshot import App; App().AsyncResult(sys.argv[1]).get(timeout=600)"

    other = subprocess.run(
        [sys.executable, "-c", program, handle.id],
        cwd=project,
        env=os.environ | {"UPSHOT_BROKER_URL": str(app.settings.broker_url)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )

    assert other.returncode == 1
    assert "UnsupportedError" in other.stderr
    assert "not submitted by this one" in other.stderr


def test_a_task_whose_worker_is_killed_ends_all_the_same(
    app: App, start_worker: StartWorker, eventually: Eventually, project: Path
) -> None:
    doomed = start_worker("-c", "1")
    marker = project / "runs"
    handle = app.send_task("jobs.mark", [str(marker), 2.0])
    eventually(marker.exists)
    doomed.kill()

    start_worker("-c", "1")

    assert handle.get(timeout=PATIENCE) > 0
    assert marker.read_text() == "xx"


def test_tasks_of_a_submitter_that_is_gone_are_run_and_settled(
    app: App, start_worker: StartWorker, is_there: IsThere, project: Path
) -> None:
    with App() as submitter:
        marker = project / "runs"
        for _ in range(5):
            submitter.send_task("jobs.mark", [str(marker)])
        address = submitter.results.backend.reply_to
    worker = start_worker("-c", "1")
    deadline = clock.Deadline(PATIENCE)  # a new worker first gives submitters time to return
    while not marker.exists() or marker.read_text() != "x" * 5:
        assert not deadline.expired
        clock.sleep(0.05)
    assert worker.stop(PATIENCE) == 0

    # What was not settled would have come back to the queue.
    found = app.broker.call(lambda broker, seconds: broker.survey(["default"], seconds))["default"]
    assert (found.ready, found.dead) == (0, 0)
    assert not is_there(address)


def test_a_worker_in_threads_of_the_same_process_works_too(app: App) -> None:
    @app.task(name="jobs.local")
    def local(x: int) -> int:
        return x + 1

    with app.running():
        assert [local.delay(number).get(timeout=PATIENCE) for number in range(20)] == list(
            range(1, 21)
        )


def test_a_message_that_is_put_away_ends_its_task_where_it_was_submitted(
    server: RabbitMQServer, elsewhere_url: Callable[[str], str]
) -> None:
    """Whatever attempt the submitter has heard of: the worker that puts it away knows of none."""
    namespace = f"buried-{uuid.uuid4().hex[:8]}"
    with (
        App(broker=server.url, backend="rpc://", namespace=namespace) as here,
        App(broker=elsewhere_url(server.url), backend="rpc://", namespace=namespace) as elsewhere,
    ):
        handle = here.send_task("jobs.add", [1, 2])
        host = elsewhere.host()
        (delivery,) = host.broker.call(
            lambda broker, _: broker.fetch(["default"], limit=1, wait=30.0, lease=60.0, worker="w")
        )
        host.client.store(
            Record(task_id=handle.id, state=State.STARTED, attempt=7, started_at=clock.now()),
            reply_to=here.results.backend.reply_to,
        )
        often = replace(delivery, deliveries=8)
        Job(host, often, worker="w", stopping=threading.Event(), cold=threading.Event()).run()
        host.close()

        with pytest.raises(WorkerLostError):
            handle.get(timeout=PATIENCE)
