"""The unit of `examples/deploy/systemd`, as it is, under a real systemd with a real Redis."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator

import pytest

from tests.deploy.lodging import ROOT, TASKS
from tests.deploy.systemd import Systemd
from upshot import App, State
from upshot_conformance.servers import RedisServer

EXAMPLES = ROOT / "examples" / "deploy" / "systemd"
UNIT = "upshot-worker@shop.service"
URL = "redis://:secret@127.0.0.1:6379/0"

MORE_TASKS = """


@app.task
def surroundings():
    def reads(path):
        try:
            return open(path).read() is not None
        except OSError:
            return False

    def writes(path):
        try:
            open(path, "w").close()
        except OSError:
            return False
        return True

    return {
        "user": os.getuid(),
        "settings": reads("/etc/upshot/shop.env"),
        "code": writes("/srv/shop/tasks.py"),
        "state": writes(os.environ["STATE_DIRECTORY"] + "/file"),
        "told": [name for name in os.environ if name in ("NOTIFY_SOCKET", "WATCHDOG_USEC")],
        "umask": os.umask(0o077),
    }
"""
TO_A_FILE = """
[Service]
StandardOutput=append:/srv/log/worker
StandardError=append:/srv/log/worker
"""
QUICK = """
[Service]
WatchdogSec=2s
"""
HASTY = """
[Service]
TimeoutStopSec=1s
"""
IMPATIENT = """
[Service]
TimeoutStartSec=3s
"""
KEYS = "k1:QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=\n"


@pytest.fixture(scope="module")
def systemd(tmp_path_factory: pytest.TempPathFactory, redis: RedisServer) -> Iterator[Systemd]:
    """With the unit, the app, and its settings, but for the keys."""
    systemd = Systemd(tmp_path_factory.mktemp("systemd"))
    shutil.copy(EXAMPLES / "upshot-worker@.service", systemd.units)
    more = systemd.units / "upshot-worker@.service.d"
    more.mkdir()
    (more / "log.conf").write_text(TO_A_FILE)
    with systemd:
        systemd.install("shop", TASKS + MORE_TASKS)
        settings = (EXAMPLES / "shop.env").read_text()
        assert URL in settings
        systemd.write("/etc/upshot/shop.env", settings.replace(URL, redis.url), mode="600")
        yield systemd


@pytest.fixture
def started(systemd: Systemd) -> Iterator[Systemd]:
    """With the worker, which is ready: `systemctl start` waits for that."""
    systemd.run("systemctl", "start", UNIT)
    yield systemd
    systemd.run("systemctl", "stop", UNIT)
    systemd.run("systemctl", "reset-failed", UNIT, check=False)


@pytest.fixture
def drop_in(systemd: Systemd) -> Iterator[Callable[[str], None]]:
    """Add lines to the unit; in the end the worker is stopped, and they are gone."""
    path = "/run/units/upshot-worker@.service.d/more.conf"

    def add(text: str) -> None:
        systemd.write(path, text)
        systemd.run("systemctl", "daemon-reload")

    yield add
    systemd.run("systemctl", "stop", UNIT)
    systemd.run("rm", path)
    systemd.run("systemctl", "daemon-reload")


def until(condition: Callable[[], bool], systemd: Systemd) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, systemd.log()
        time.sleep(0.05)


def test_the_unit_is_verified(systemd: Systemd) -> None:
    assert systemd.run("systemd-analyze", "verify", UNIT) == ""


def test_it_is_started_when_its_processes_consume(started: Systemd, app: App) -> None:
    assert started.show(UNIT, "ActiveState") == "active"
    assert started.show(UNIT, "StatusText") == "2 of 2 processes consume"
    assert app.send_task("tasks.add", [2, 3]).get(timeout=30) == 5


def test_it_may_do_what_it_needs_and_no_more(started: Systemd, app: App) -> None:
    found = app.send_task("tasks.surroundings").get(timeout=30)

    assert found.pop("user") not in {0, os.getuid()}
    assert found == {"settings": False, "code": False, "state": True, "told": [], "umask": 0o077}
    secret = app.settings.broker_url or ""
    assert secret not in started.run("systemctl", "show", UNIT)


def test_a_stop_waits_for_running_tasks_and_loses_none(systemd: Systemd, app: App) -> None:
    systemd.run("systemctl", "start", UNIT)
    running = [app.send_task("tasks.nap", [2.0]) for _ in range(2)]
    until(lambda: all(each.state == State.STARTED for each in running), systemd)
    waiting = app.send_task("tasks.add", [1, 2])

    systemd.run("systemctl", "stop", UNIT)

    assert [each.get(timeout=0) for each in running] == [2.0, 2.0]
    assert waiting.state == State.QUEUED
    assert systemd.show(UNIT, "Result") == "success"
    assert "stopping: running tasks have 25 seconds to finish" in systemd.log()
    systemd.run("systemctl", "start", UNIT)
    assert waiting.get(timeout=30) == 3
    systemd.run("systemctl", "stop", UNIT)


def test_a_worker_that_was_killed_is_started_again(started: Systemd, app: App) -> None:
    before = started.show(UNIT, "MainPID")

    started.run("kill", "-KILL", before)

    until(lambda: started.show(UNIT, "MainPID") not in {"0", before}, started)
    assert app.send_task("tasks.add", [2, 3]).get(timeout=30) == 5
    assert started.show(UNIT, "NRestarts") == "1"


def test_a_worker_that_hangs_is_started_again(
    systemd: Systemd, app: App, drop_in: Callable[[str], None]
) -> None:
    drop_in(QUICK)
    systemd.run("systemctl", "start", UNIT)
    before = systemd.show(UNIT, "MainPID")

    systemd.run("kill", "-STOP", before)

    until(lambda: systemd.show(UNIT, "MainPID") not in {"0", before}, systemd)
    assert systemd.show(UNIT, "NRestarts") == "1"
    assert app.send_task("tasks.add", [2, 3]).get(timeout=30) == 5


def test_a_worker_gets_the_time_that_its_tasks_have(
    systemd: Systemd, app: App, drop_in: Callable[[str], None]
) -> None:
    drop_in(HASTY)
    systemd.run("systemctl", "start", UNIT)
    running = app.send_task("tasks.nap", [5.0])
    until(lambda: running.state == State.STARTED, systemd)

    systemd.run("systemctl", "stop", UNIT)

    assert running.get(timeout=0) == 5.0
    assert systemd.show(UNIT, "Result") == "success"


def test_a_wrong_setting_is_not_tried_again(systemd: Systemd, redis: RedisServer) -> None:
    systemd.install("wrong", TASKS + MORE_TASKS)
    settings = f"UPSHOT_APP=tasks\nUPSHOT_BROKER_URL={redis.url}\nUPSHOT_WORKER_LEASE=soon\n"
    systemd.write("/etc/upshot/wrong.env", settings, mode="600")
    unit = UNIT.replace("shop", "wrong")

    systemd.run("systemctl", "start", unit, check=False)

    assert systemd.show(unit, "ActiveState") == "failed"
    assert systemd.show(unit, "ExecMainStatus") == "2"
    assert systemd.show(unit, "NRestarts") == "0"
    assert "worker_lease" in systemd.log()


def test_a_worker_whose_broker_is_away_is_tried_until_it_is_back(
    systemd: Systemd, redis: RedisServer, drop_in: Callable[[str], None]
) -> None:
    systemd.install("late", TASKS)
    settings, unit = "UPSHOT_APP=tasks\nUPSHOT_BROKER_URL={}\n", UNIT.replace("shop", "late")
    systemd.write("/etc/upshot/late.env", settings.format("redis://127.0.0.1:1/0"), mode="600")
    drop_in(IMPATIENT)

    told = systemd.run("systemctl", "start", unit, check=False)
    assert "timeout was exceeded" in told
    assert systemd.show(unit, "ActiveState") == "activating"
    systemd.write("/etc/upshot/late.env", settings.format(redis.url), mode="600")

    until(lambda: systemd.show(unit, "ActiveState") == "active", systemd)
    assert systemd.show(unit, "StatusText").endswith("processes consume")
    systemd.run("systemctl", "stop", unit)


def test_keys_come_as_a_credential(
    systemd: Systemd, app: App, drop_in: Callable[[str], None]
) -> None:
    systemd.write("/etc/upshot/shop.keys", KEYS, mode="600")
    drop_in((EXAMPLES / "upshot-worker@.service.d" / "keys.conf").read_text())

    systemd.run("systemctl", "start", UNIT)

    with app.overridden(signing_keys=(KEYS.strip(),)):
        assert app.send_task("tasks.add", [2, 3]).get(timeout=30) == 5
