"""What a real worker tells the service manager that started it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import Worker
from tests.deploy.listening import Manager
from upshot import App, State

StartWorker = Callable[..., Worker]

MORE_TASKS = """

@app.task
def variables() -> list[str]:
    return sorted(os.environ)
"""
DIES_AT_BIRTH = """

os.register_at_fork(after_in_child=lambda: os._exit(3))
"""


@pytest.fixture
def service_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/queue.db"


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    """A service manager that has a watchdog of two seconds."""
    manager = Manager(tmp_path)
    monkeypatch.setenv("NOTIFY_SOCKET", manager.address)
    monkeypatch.setenv("WATCHDOG_USEC", "2000000")
    yield manager
    manager.close()


@pytest.fixture
def app(project: Path) -> Iterator[App]:
    with App() as app:
        yield app


def is_ready(lines: dict[str, str]) -> bool:
    return lines.get("READY") == "1"


def is_alive(lines: dict[str, str]) -> bool:
    return lines.get("WATCHDOG") == "1"


def test_it_is_ready_when_its_processes_consume_and_says_when_it_stops(
    manager: Manager, app: App, start_worker: StartWorker, project: Path
) -> None:
    worker = start_worker("-c", "2")

    assert manager.until(is_ready)["STATUS"] == "2 of 2 processes consume"
    manager.until(is_alive)
    running = app.send_task("jobs.nap", [2.0])
    while running.state != State.STARTED:
        manager.listen(30)
    code = worker.stop()
    told = manager.until(lambda lines: "STOPPING" in lines)

    assert code == 0
    assert running.get(timeout=0) == 2.0
    assert told["STOPPING"] == "1"
    assert told["EXTEND_TIMEOUT_USEC"] == "10000000"
    assert "25 seconds to finish" in told["STATUS"]
    assert sum(is_ready(lines) for lines in manager.heard) == 1


def test_a_task_does_not_inherit_what_is_for_the_worker(
    manager: Manager, app: App, start_worker: StartWorker, project: Path
) -> None:
    with (project / "jobs.py").open("a") as jobs:
        jobs.write(MORE_TASKS)
    start_worker("-c", "1")

    names = app.send_task("jobs.variables").get(timeout=30)

    assert "PATH" in names
    assert {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}.isdisjoint(names)


def test_a_process_that_is_wedged_is_replaced_and_the_others_go_on(
    manager: Manager, app: App, start_worker: StartWorker
) -> None:
    worker = start_worker("-c", "2")
    manager.until(is_ready)
    wedged, other = worker.children()

    os.kill(wedged, signal.SIGSTOP)
    while wedged in worker.children():
        manager.listen(30)
    manager.until(lambda lines: lines.get("STATUS") == "2 of 2 processes consume")
    manager.until(is_alive)

    assert other in worker.children()
    assert f"process {wedged} is killed: it gives no sign of life" in worker.output()
    assert app.send_task("jobs.add", [2, 3]).get(timeout=30) == 5


def test_a_long_task_is_no_wedge(
    manager: Manager, app: App, start_worker: StartWorker, project: Path
) -> None:
    start_worker("-c", "1")

    # Longer than the watchdog, and than the five seconds that every process has.
    assert app.send_task("jobs.nap", [7.0]).get(timeout=60) == 7.0


def test_processes_that_are_replaced_all_the_time_are_alive_and_consume(
    manager: Manager,
    app: App,
    start_worker: StartWorker,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "4000000")
    for _ in range(300):
        app.send_task("jobs.nap", [0.05], ignore_result=True)

    start_worker("-c", "1", "--max-tasks-per-child", "1")

    # Each of them is gone before anybody looks for its first sign of life.
    manager.until(is_ready)
    began = last = time.monotonic()
    while last < began + 9:  # longer than the five seconds that every process has
        manager.until(is_alive)
        now = time.monotonic()
        assert now - last < 4
        last = now
    assert [lines for lines in manager.heard if "0 of 1" in lines.get("STATUS", "")] in (
        [],
        [manager.heard[0]],
    )


def test_a_worker_none_of_whose_processes_lives_shows_no_life(
    manager: Manager, start_worker: StartWorker, project: Path
) -> None:
    with (project / "jobs.py").open("a") as jobs:
        jobs.write(DIES_AT_BIRTH)
    start_worker("-c", "1")
    manager.until(is_alive)

    with suppress(TimeoutError):  # a silence of more than the watchdog allows
        while manager.listen(4):
            pass

    assert not any(map(is_ready, manager.heard))


def test_it_is_not_ready_while_its_broker_is_away(
    manager: Manager, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPSHOT_BROKER_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("UPSHOT_OPERATION_TIMEOUT", "0.5")
    worker = start_worker("-c", "1")

    while "no messages for now" not in worker.output():
        manager.until(is_alive)

    assert manager.heard[0] == {"STATUS": "0 of 1 processes consume"}
    assert not any(map(is_ready, manager.heard))


def test_a_reload_is_told_as_one(
    manager: Manager, start_worker: StartWorker, project: Path
) -> None:
    worker = start_worker("-c", "1", "--reload")
    manager.until(is_ready)

    began = time.monotonic()
    with (project / "jobs.py").open("a") as jobs:
        jobs.write("\n# changed\n")
    told = manager.until(lambda lines: "RELOADING" in lines)
    manager.until(is_ready)

    assert began * 1e6 <= int(told["MONOTONIC_USEC"]) <= time.monotonic() * 1e6
    assert "STOPPING" not in told
    assert worker.stop() == 0
    manager.until(lambda lines: "STOPPING" in lines)


def test_a_stop_in_the_middle_of_a_reload_is_a_warm_stop(
    manager: Manager, app: App, start_worker: StartWorker, project: Path
) -> None:
    worker = start_worker("-c", "1", "--reload")
    manager.until(is_ready)
    running = app.send_task("jobs.nap", [3.0])
    while running.state != State.STARTED:
        manager.listen(30)
    with (project / "jobs.py").open("a") as jobs:
        jobs.write("\n# changed\n")
    manager.until(lambda lines: "RELOADING" in lines)

    code = worker.stop()

    assert code == 0
    assert running.get(timeout=0) == 3.0
    assert "starting again" not in worker.output()
    manager.until(lambda lines: lines.get("STOPPING") == "1")
