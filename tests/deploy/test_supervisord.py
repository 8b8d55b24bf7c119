"""The program of `examples/deploy/supervisord`, under a real supervisord with a real Redis."""

from __future__ import annotations

import configparser
import getpass
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import AS_IN_FRONT
from tests.deploy.lodging import ROOT, TASKS
from upshot import App, State
from upshot_conformance.servers import RedisServer

EXAMPLE = ROOT / "examples" / "deploy" / "supervisord" / "upshot-worker.conf"
PROGRAM = "program:upshot-worker"
URL = "redis://:secret@127.0.0.1:6379/0"

# What Debian's package has in /etc/supervisor/supervisord.conf, in a folder of the test.
SUPERVISORD = """
[unix_http_server]
file={folder}/supervisor.sock

[supervisord]
nodaemon=true
logfile={folder}/supervisord.log
pidfile={folder}/supervisord.pid
childlogdir={folder}
user={user}

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

[supervisorctl]
serverurl=unix://{folder}/supervisor.sock

[include]
files = {folder}/conf.d/*.conf
"""


class Supervisord:
    """A supervisord of its own, with the example's program, adapted to a folder and a Redis."""

    def __init__(self, folder: Path, url: str) -> None:
        self._folder = folder
        self._options = ("-c", str(folder / "supervisord.conf"))
        text = SUPERVISORD.format(folder=folder, user=getpass.getuser())
        (folder / "supervisord.conf").write_text(text)
        (folder / "conf.d").mkdir()
        (folder / "tasks.py").write_text(TASKS)
        (folder / "conf.d" / EXAMPLE.name).write_text(self._adapted(url))
        with (folder / "output").open("w") as output:
            self.process = subprocess.Popen(
                [*AS_IN_FRONT, "supervisord", *self._options], stdout=output, stderr=output
            )
        self.until(lambda: "RUNNING" in self.ctl("status"))

    def _adapted(self, url: str) -> str:
        """Return the example with the paths, the user and the URL that there are here."""
        text, places = EXAMPLE.read_text(), {
            "/srv/shop/venv/bin/upshot": f"{sys.executable} -m upshot",
            "directory=/srv/shop\n": f"directory={self._folder}\n",
            "user=shop\n": f"user={getpass.getuser()}\n",
            "/var/log/supervisor": str(self._folder),
            URL: url,
        }  # fmt: skip
        for place, here in places.items():
            assert place in text
            text = text.replace(place, here)
        return text

    def ctl(self, *words: str) -> str:
        """Return what `supervisorctl` prints."""
        done = subprocess.run(
            ["supervisorctl", *self._options, *words], capture_output=True, text=True, check=False
        )
        return done.stdout

    def pid(self) -> int:
        """Return the process id of the worker; 0 if there is none."""
        return int(self.ctl("pid", "upshot-worker").strip() or 0)

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait until `holds` does."""
        deadline = time.monotonic() + 60
        while not holds():
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)

    def log(self) -> str:
        """Return all that was written here."""
        names = ("output", "supervisord.log", "upshot-worker.log")
        paths = [self._folder / name for name in names]
        return "\n".join(path.read_text() for path in paths if path.exists())

    def close(self) -> None:
        """Stop it as its init script does: it stops the worker, and ends."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        finally:
            self.process.kill()


@pytest.fixture
def supervisord(
    tmp_path: Path, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Supervisord]:
    for name in [name for name in os.environ if name.startswith("UPSHOT_")]:
        monkeypatch.delenv(name)
    supervisord = Supervisord(tmp_path, redis.url)
    yield supervisord
    supervisord.close()


def test_a_stop_waits_for_running_tasks_and_loses_none(supervisord: Supervisord, app: App) -> None:
    running = [app.send_task("tasks.nap", [2.0]) for _ in range(2)]
    supervisord.until(lambda: all(each.state == State.STARTED for each in running))
    waiting = app.send_task("tasks.add", [1, 2])

    assert supervisord.ctl("stop", "upshot-worker") == "upshot-worker: stopped\n"

    assert [each.get(timeout=0) for each in running] == [2.0, 2.0]
    assert [each.attempts for each in running] == [1, 1]
    assert waiting.state == State.QUEUED
    assert "stopped: upshot-worker (exit status 0)" in supervisord.log()
    assert supervisord.ctl("start", "upshot-worker") == "upshot-worker: started\n"
    assert waiting.get(timeout=30) == 3


def test_a_worker_that_was_killed_is_started_again(supervisord: Supervisord, app: App) -> None:
    before = supervisord.pid()

    os.kill(before, signal.SIGKILL)

    supervisord.until(lambda: supervisord.pid() not in {0, before})
    assert app.send_task("tasks.add", [2, 3]).get(timeout=30) == 5
    assert "terminated by SIGKILL; not expected" in supervisord.log()


def test_the_end_of_supervisord_is_a_warm_stop(supervisord: Supervisord, app: App) -> None:
    running = app.send_task("tasks.nap", [2.0])
    supervisord.until(lambda: running.state == State.STARTED)

    supervisord.close()

    assert running.get(timeout=0) == 2.0


def test_it_waits_longer_than_running_tasks_have() -> None:
    parsed = configparser.RawConfigParser()
    parsed.read(EXAMPLE)

    grace = App(broker="memory://").settings.worker_shutdown_timeout
    assert parsed.getint(PROGRAM, "stopwaitsecs") > grace + 5
    assert not parsed.getboolean(PROGRAM, "stopasgroup")
