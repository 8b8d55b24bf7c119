"""Real workers as processes, on real services: what they promise, alive and killed."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from upshot import App, State
from upshot.errors import TaskRevokedError, TimeLimitExceededError, WorkerLostError

StartWorker = Callable[..., Any]

HOLD = """

@app.task(time_limit=1)
def hold():
    import re

    re.match(r"(a+)+$", "a" * 64 + "b")
"""


@pytest.fixture
def app(project: Path) -> Iterator[App]:
    """The caller's side: an app that knows the tasks by name only."""
    with App() as app:
        yield app


def until(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    """Look until `condition` holds or the time is up; return what it was at last."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def is_running(pid: int) -> bool:
    """Tell whether a process runs; one that has ended may wait for whoever inherited it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def reached(terminal: Counter[str], goal: int) -> bool:
    return len(terminal) >= goal


def test_a_worker_runs_what_was_sent_before_it_started(app: App, start_worker: StartWorker) -> None:
    handle = app.send_task("jobs.add", [2, 3])
    state_before = handle.state

    start_worker("-c", "1")

    assert handle.get(timeout=20) == 5
    assert state_before == State.QUEUED
    assert handle.attempts == 1
    assert handle.worker


def test_the_banner_names_everything_and_no_password(app: App, start_worker: StartWorker) -> None:
    worker = start_worker("-c", "1")
    app.send_task("jobs.add", [1, 1]).get(timeout=20)

    code = worker.stop()

    output = worker.output()
    assert code == 0
    for expected in ("broker", "backend", "queues", "jobs.add", "1 process"):
        assert expected in output
    assert "jobs.add SUCCESS in" in output


def test_burst_stops_when_the_queue_is_empty(app: App, start_worker: StartWorker) -> None:
    handles = app.ResultSet([app.send_task("jobs.add", [n, n]).id for n in range(20)])

    worker = start_worker("-c", "2", "--burst")

    assert worker.process.wait(30) == 0
    assert handles.get(timeout=0) == [2 * n for n in range(20)]


def test_a_warm_stop_finishes_what_runs(app: App, start_worker: StartWorker, project: Path) -> None:
    worker = start_worker("-c", "1")
    running = app.send_task("jobs.nap", [1.0])
    assert until(lambda: running.state == State.STARTED)
    waiting = app.send_task("jobs.add", [1, 1])

    code = worker.stop()

    assert code == 0
    assert running.get(timeout=0) == 1.0
    assert waiting.state == State.QUEUED


def test_a_second_signal_gives_running_tasks_back(
    app: App, start_worker: StartWorker, project: Path
) -> None:
    worker = start_worker("-c", "1")
    marker = str(project / "runs")
    running = app.send_task("jobs.mark", [marker, 3.0])
    assert until(lambda: running.state == State.STARTED)

    worker.process.send_signal(signal.SIGTERM)
    assert until(lambda: "stopping" in worker.output())
    worker.process.send_signal(signal.SIGTERM)
    code = worker.process.wait(10)

    assert code == 1
    start_worker("-c", "1")
    assert running.get(timeout=20) > 0
    assert Path(marker).read_text() == "xx"


def test_a_signal_does_not_save_a_task_that_holds_the_interpreter_beyond_its_limit(
    app: App, start_worker: StartWorker, project: Path
) -> None:
    with (project / "jobs.py").open("a") as jobs:
        jobs.write(HOLD)
    worker = start_worker("-c", "1", "--grace", "60")
    held = app.send_task("jobs.hold")
    assert until(lambda: held.state == State.STARTED)

    time.sleep(1.5)  # beyond its limit, and before the supervisor has lost its patience
    worker.process.send_signal(signal.SIGTERM)  # its handler lets the other threads run, too

    assert worker.process.wait(30) in {0, 1}  # by itself, or killed by the supervisor
    assert "stopping now" not in worker.output()


def test_signals_to_the_very_end_change_no_exit_code(app: App, start_worker: StartWorker) -> None:
    worker = start_worker("-c", "1")
    assert app.send_task("jobs.add", [1, 2]).get(timeout=20) == 3

    deadline = time.monotonic() + 20
    while worker.process.poll() is None and time.monotonic() < deadline:
        worker.process.send_signal(signal.SIGQUIT)
        time.sleep(0.001)

    assert worker.process.poll() in {0, 1}


def test_impatient_signals_stop_cold_at_once(app: App, start_worker: StartWorker) -> None:
    worker = start_worker("-c", "1", "--grace", "60")
    running = app.send_task("jobs.nap", [60.0])
    assert until(lambda: running.state == State.STARTED)

    for _ in range(4):  # all within one look of the supervisor at its signals
        worker.process.send_signal(signal.SIGTERM)
        time.sleep(0.02)

    assert worker.process.wait(10) == 1
    status = app.broker.call(lambda broker, seconds: broker.survey(["default"], seconds))
    assert status["default"].ready == 1


def test_processes_whose_supervisor_was_killed_end_after_the_grace(
    app: App, start_worker: StartWorker, project: Path
) -> None:
    mark = project / "mark"
    handle = app.send_task("jobs.mark", [str(mark), 60.0])
    worker = start_worker("-c", "1", "--grace", "0.5")
    assert until(mark.exists)
    (child,) = worker.children()
    log = worker.output

    worker.process.kill()
    worker.process.wait()

    assert until(lambda: not is_running(child)), log()
    assert f"task {handle.id} jobs.mark is given back" in log()
    start_worker("-c", "1")
    assert until(lambda: mark.read_text() == "xx")
    assert handle.attempts == 2


def test_signals_of_a_process_that_a_task_forked_are_its_own(
    app: App, start_worker: StartWorker
) -> None:
    worker = start_worker("-c", "1")

    code = app.send_task("jobs.fork_and_terminate").get(timeout=20)

    assert code == -signal.SIGTERM
    assert app.send_task("jobs.add", [1, 2]).get(timeout=20) == 3
    assert "ended" not in worker.output()


def test_burst_without_a_broker_ends(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPSHOT_BROKER_URL", "redis://:secret-word@127.0.0.1:1/0")
    monkeypatch.setenv("UPSHOT_OPERATION_TIMEOUT", "0.5")
    worker = start_worker("-c", "1", "--burst")

    assert worker.process.wait(30) == 1
    assert "cannot be reached" in worker.output()
    assert "secret-word" not in worker.output()


def test_burst_without_a_result_store_ends_and_runs_nothing(
    app: App, start_worker: StartWorker, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = project / "runs"
    handle = app.send_task("jobs.mark", [str(marker)])
    with monkeypatch.context() as environment:
        environment.setenv("UPSHOT_RESULT_BACKEND", "redis://127.0.0.1:1/0")
        environment.setenv("UPSHOT_OPERATION_TIMEOUT", "0.5")
        worker = start_worker("-c", "1", "--burst")

        assert worker.process.wait(60) == 1
    assert "is given back" in worker.output()
    assert not marker.exists()
    assert start_worker("-c", "1", "--burst").process.wait(60) == 0
    assert handle.get(timeout=0) > 0


def test_time_limits_end_the_task_and_not_the_worker(app: App, start_worker: StartWorker) -> None:
    start_worker("-c", "1")

    hard = app.send_task("jobs.endless").get(timeout=20, propagate=False)
    soft = app.send_task("jobs.patient").get(timeout=20, propagate=False)

    assert isinstance(hard, TimeLimitExceededError)
    assert "0.3 seconds" in str(soft)
    assert app.send_task("jobs.add", [1, 2]).get(timeout=20) == 3


def test_a_task_that_kills_its_worker_fails_in_the_end(app: App, start_worker: StartWorker) -> None:
    start_worker("-c", "1")
    neighbours = [app.send_task("jobs.add", [n, 1]) for n in range(10)]

    lost = app.send_task("jobs.die")

    assert isinstance(lost.exception(timeout=40), WorkerLostError)
    assert lost.attempts == 3
    assert [handle.get(timeout=20) for handle in neighbours] == list(range(1, 11))


def test_a_revoked_task_is_not_run(app: App, start_worker: StartWorker, project: Path) -> None:
    marker = project / "runs"
    handle = app.send_task("jobs.mark", [str(marker)])

    assert handle.revoke() is True
    start_worker("-c", "1", "--burst").process.wait(30)

    assert not marker.exists()
    with pytest.raises(TaskRevokedError):
        handle.get(timeout=0)


def test_a_running_task_can_notice_its_revocation(app: App, start_worker: StartWorker) -> None:
    start_worker("-c", "1")
    handle = app.send_task("jobs.until_revoked")
    assert until(lambda: handle.state == State.STARTED)

    handle.revoke()

    assert app.send_task("jobs.add", [1, 1]).get(timeout=20) == 2
    assert handle.state == State.REVOKED


def test_an_unknown_task_fails_and_names_those_that_exist(
    app: App, start_worker: StartWorker
) -> None:
    start_worker("-c", "1")

    error = app.send_task("jobs.subtract", [1, 2]).get(timeout=20, propagate=False)

    assert "jobs.subtract" in str(error)
    assert "jobs.add" in str(error)


def test_one_id_sent_twice_runs_once(app: App, start_worker: StartWorker, project: Path) -> None:
    marker = project / "runs"
    first = app.send_task("jobs.mark", [str(marker)], task_id="once")
    start_worker("-c", "2")
    first.get(timeout=20)

    second = app.send_task("jobs.mark", [str(marker)], task_id="once")
    app.send_task("jobs.add", [1, 1]).get(timeout=20)

    assert second.get(timeout=0) == first.get(timeout=0)
    assert marker.read_text() == "x"


def test_killed_workers_lose_no_task_of_five_hundred(
    app: App, start_worker: StartWorker, project: Path
) -> None:
    """Acceptance 6: kill -9 in the middle; each task reaches exactly one terminal record."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    marker = project / "runs"
    ids = [app.send_task("jobs.mark", [str(marker), 0.01], task_id=f"t{n}").id for n in range(500)]
    terminal: Counter[str] = Counter()
    for task_id in ids:
        app.AsyncResult(task_id).add_done_callback(lambda handle: terminal.update([handle.id]))

    first = start_worker("-c", "2")
    for goal in (60, 160):  # a process of the worker: its supervisor replaces it
        assert until(partial(reached, terminal, goal), 60)
        victims = first.children()
        assert victims
        os.kill(dice.choice(victims), signal.SIGKILL)
    assert until(lambda: len(terminal) >= 280, 60)
    first.kill()  # the whole worker at once: a second one takes over
    start_worker("-c", "2")

    results = app.ResultSet(ids)
    pids = results.get(timeout=60)
    assert len(pids) == 500
    assert results.successful()
    assert until(lambda: len(terminal) == 500)
    assert set(terminal.values()) == {1}
    runs = len(marker.read_text())
    print(f"500 tasks, 3 kills: {runs} runs, {runs - 500} of them repeated")
    assert 500 <= runs <= 510
