"""`upshot status`: which workers are alive, what waits, and what runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest

from upshot import App
from upshot.record import Record
from upshot.states import State
from upshot_conformance.servers import MemcachedServer, RabbitMQServer

from .here import CommandHere

JOBS = """
    from upshot import App

    app = App("jobs")


    @app.task
    def until():
        return None


    @app.task(queue="slow")
    def never_run():
        return None
"""


@pytest.fixture
def own(tmp_path: Path) -> dict[str, str]:
    """The settings of the test, which every process of it gets."""
    return {
        "UPSHOT_BROKER_URL": f"sqlite:///{tmp_path}/queue.db",
        "UPSHOT_NAMESPACE": f"status{os.urandom(4).hex()}",
        "UPSHOT_WORKER_LEASE": "2",
    }


@pytest.fixture
def upshot(
    tmp_path: Path,
    own: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> CommandHere:
    """Runs `upshot` in a folder that has `jobs.py`."""
    (tmp_path / "jobs.py").write_text(textwrap.dedent(JOBS))
    monkeypatch.setenv("UPSHOT_APP", "jobs")
    return CommandHere(tmp_path, own, capsys)


def picture(upshot: CommandHere, *arguments: str, **more: str) -> dict[str, Any]:
    done = upshot("status", "--json", *arguments, **more)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("service", ["sqlite", "redis", "postgresql", "amqp"])
def test_what_runs_is_shown_with_its_worker_and_what_waits_without(
    service: str,
    upshot: CommandHere,
    own: dict[str, str],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    if service != "sqlite":
        fixture = "rabbitmq_server" if service == "amqp" else f"{service}_server"
        own["UPSHOT_BROKER_URL"] = request.getfixturevalue(fixture).url
    results = f"sqlite:///{tmp_path}/results.db" if service == "amqp" else own["UPSHOT_BROKER_URL"]
    own["UPSHOT_RESULT_BACKEND"] = results
    app = App(
        "jobs",
        broker=own["UPSHOT_BROKER_URL"],
        backend=results,
        namespace=own["UPSHOT_NAMESPACE"],
    )
    begun, end = threading.Event(), threading.Event()

    @app.task(name="jobs.until")
    def until() -> None:
        begun.set()
        end.wait(60)

    with app, app.running(threads=1, queues=["default"]):
        upshot("call", "never_run")
        until.apply_async(task_id="it")
        assert begun.wait(60)
        found, shown = picture(upshot), upshot("status")
        end.set()

    (running,) = found["running"]
    assert (running["id"], running["name"], running["queue"]) == ("it", "jobs.until", "default")
    assert (running["state"], running["attempt"]) == ("STARTED", 1)
    assert running["seconds"] >= 0
    queues = {each["queue"]: each for each in found["queues"]}
    assert queues["slow"]["ready"] == 1
    assert "jobs.until" in shown.stdout
    if service == "amqp":
        assert found["workers"] is None
        assert running["worker_alive"] is None
        assert queues["default"]["leased"] is None
        assert "does not tell which workers there are" in shown.stderr
    else:
        (alive,) = found["workers"]
        assert (alive["pid"], alive["worker"]) == (os.getpid(), running["worker"])
        assert (alive["queues"], alive["running"]) == (["default"], 1)
        assert running["worker_alive"] is True
        assert queues["default"]["leased"] == 1
        assert queues["slow"]["workers"] == []


def test_the_processes_of_a_worker_are_shown_as_one(
    upshot: CommandHere, own: dict[str, str]
) -> None:
    app = App("jobs", broker=own["UPSHOT_BROKER_URL"], namespace=own["UPSHOT_NAMESPACE"])
    with app:
        for name in ("host:7/1", "host:7/2", "other"):
            app.broker.current.beat(name, ["default"], [], lease=60.0, timeout=5.0)

    first, second = picture(upshot)["workers"]
    assert (first["worker"], first["host"], first["pid"]) == ("host:7", "host", 7)
    assert first["processes"] == ["host:7/1", "host:7/2"]
    assert (second["worker"], second["host"], second["pid"]) == ("other", None, None)


def test_a_task_whose_worker_is_gone_is_shown_as_such(
    upshot: CommandHere, own: dict[str, str]
) -> None:
    app = App("jobs", broker=own["UPSHOT_BROKER_URL"], namespace=own["UPSHOT_NAMESPACE"])
    record = Record("it", State.STARTED, 2, "jobs.until", "default", "host:7/1", started_at=5.0)
    with app:
        app.results.store(record)

    (running,) = picture(upshot)["running"]
    shown = upshot("status").stdout
    assert (running["worker_alive"], running["attempt"]) == (False, 2)
    assert "host:7/1  (gone)" in shown
    assert "Workers alive: none" in shown


@pytest.mark.parametrize(
    ("backend", "words"),
    [("rpc", "carries results to who sent the task"), ("memcached", "cannot list its records")],
)
def test_where_records_cannot_be_listed_the_rest_is_shown(
    backend: str,
    words: str,
    upshot: CommandHere,
    request: pytest.FixtureRequest,
) -> None:
    if backend == "rpc":
        rabbit: RabbitMQServer = request.getfixturevalue("rabbitmq_server")
        more = {"UPSHOT_BROKER_URL": rabbit.url}
    else:
        memcached: MemcachedServer = request.getfixturevalue("memcached_server")
        more = {"UPSHOT_RESULT_BACKEND": memcached.url}
    found = picture(upshot, **more)

    assert found["running"] is None
    assert any(words in note for note in found["notes"])
    assert [each["queue"] for each in found["queues"]] == ["default", "slow"]


def test_queues_may_be_named_and_are_the_only_ones_then(upshot: CommandHere) -> None:
    found = picture(upshot, "-Q", "other,slow")

    assert [each["queue"] for each in found["queues"]] == ["other", "slow"]


def test_a_broker_in_memory_has_nothing_to_show(upshot: CommandHere) -> None:
    done = upshot("status", UPSHOT_BROKER_URL="memory://x")

    assert done.returncode == 1
    assert "keeps messages inside the process" in done.stderr
    assert done.stdout == ""


def test_a_broker_that_is_away_is_one_sentence(upshot: CommandHere) -> None:
    done = upshot("status", UPSHOT_BROKER_URL="redis://127.0.0.1:1", UPSHOT_OPERATION_TIMEOUT="1")

    assert done.returncode == 1
    assert "cannot be reached" in done.stderr


def test_it_says_how_many_records_it_did_not_look_at(upshot: CommandHere) -> None:
    for _ in range(3):
        upshot("call", "never_run")
    some, none = picture(upshot, "--records", "2"), picture(upshot, "--records", "0")

    assert some["running"] == []
    assert some["notes"] == ["there are more than 2 records, of which not all were looked at"]
    assert (none["running"], none["notes"]) == (None, [])


def test_it_is_shown_again_and_again_until_ctrl_c(
    upshot: CommandHere, own: dict[str, str], tmp_path: Path
) -> None:
    options = ["-A", "jobs", "status", "--watch", "0.05"]
    process = subprocess.Popen(
        ["env", "--default-signal=INT", sys.executable, "-m", "upshot", *options],
        cwd=tmp_path,
        env={**os.environ, **own, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    seen = 0
    for line in process.stdout:
        seen += line.startswith("Queues")
        if seen == 3:
            process.send_signal(signal.SIGINT)
            break
    _, errors = process.communicate(timeout=60)

    assert seen == 3
    assert process.returncode == 130
    assert "Traceback" not in errors


def test_a_narrow_terminal_folds_no_id(upshot: CommandHere, own: dict[str, str]) -> None:
    task_id, queue = "0123456789abcdef" * 2, "a-queue-with-a-rather-long-name"
    with App("jobs", broker=own["UPSHOT_BROKER_URL"], namespace=own["UPSHOT_NAMESPACE"]) as app:
        record = Record(task_id, State.STARTED, name="jobs.nap", queue=queue, started_at=1.0)
        app.results.store(record)

    wide, narrow = (upshot("status", "-Q", queue, COLUMNS=each) for each in ("200", "40"))

    assert f"{task_id}  jobs.nap" in wide.stdout
    assert f"id       {task_id}\ntask     jobs.nap\n" in narrow.stdout
    assert f"queue             {queue}\nready             0\n" in narrow.stdout
