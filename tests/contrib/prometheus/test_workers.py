"""What the processes of real workers count, as it is scraped over HTTP from `upshot metrics`."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from upshot import App, State

from .scraping import Scrape, until

StartWorker = Callable[..., Any]

INSTRUMENTED = """

from upshot_contrib.prometheus import instrument

instrument(app)
"""


class Metrics:
    """A real `upshot metrics`.

    Args:
        folder: where `jobs.py` is.
        options: of the command.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        command = [sys.executable, "-m", "upshot", "-A", "jobs", "metrics", "--port", "0"]
        self.process = subprocess.Popen(
            [*command, *options], cwd=folder, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stderr is not None
        self.said: list[str] = []
        while not self.said or "http://" not in self.said[-1]:
            self.said.append(self.process.stderr.readline())
            assert self.said[-1], self.said  # it has ended
        found = re.search(r"http://\S+", self.said[-1])
        assert found
        self.url = found[0]

    def scrape(self) -> Scrape:
        """Do what Prometheus does."""
        with urllib.request.urlopen(self.url, timeout=30) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain")
            return Scrape(answer.read().decode())


@pytest.fixture
def app(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    jobs = project / "jobs.py"
    jobs.write_text(jobs.read_text() + INSTRUMENTED)
    shared = project / "metrics"
    shared.mkdir()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(shared))
    with App() as app:
        yield app


@pytest.fixture
def metrics(app: App, project: Path) -> Iterator[Metrics]:
    serving = Metrics(project)
    yield serving
    serving.process.send_signal(signal.SIGTERM)
    assert serving.process.wait(30) == 0
    assert serving.process.stderr is not None
    assert serving.process.stderr.read() == ""
    serving.process.stderr.close()


def test_all_processes_of_a_worker_count_together(
    app: App, start_worker: StartWorker, metrics: Metrics
) -> None:
    handles = app.ResultSet([app.send_task("jobs.add", [n, n]).id for n in range(20)])
    assert metrics.scrape()("upshot_queue_messages", queue="default", status="ready") == 20
    worker = start_worker("-c", "3")
    handles.get(timeout=60)
    app.send_task("jobs.fail", [7]).exception(timeout=30)
    app.send_task("jobs.second_time").get(timeout=30)
    app.send_task("nobody").exception(timeout=30)
    serving = metrics.scrape()
    assert worker.stop() == 0

    found = metrics.scrape()
    done = "upshot_tasks_finished_total"
    assert found(done, task="jobs.add", state="SUCCESS") == 20
    assert found(done, task="jobs.fail", state="FAILURE") == 1
    assert found(done, task="jobs.second_time", state="SUCCESS") == 1
    assert found(done, task="unknown", state="FAILURE") == 1
    assert found("upshot_task_retries_total", task="jobs.second_time") == 1
    assert found("upshot_task_run_seconds_count", task="jobs.add") == 20
    assert found("upshot_task_wait_seconds_count", task="jobs.add") == 20
    assert found.total("upshot_tasks_running") == 0
    assert found("upshot_queue_messages", queue="default", status="ready") == 0
    assert serving("upshot_queue_workers", queue="default") == 3
    assert found("upshot_queue_workers", queue="default") == 0


def test_what_a_process_ran_when_it_died_runs_no_more(
    app: App, start_worker: StartWorker, metrics: Metrics
) -> None:
    worker = start_worker("-c", "1")
    handle = app.send_task("jobs.nap", [60])
    assert until(lambda: handle.state == State.STARTED)
    assert until(lambda: metrics.scrape()("upshot_tasks_running", task="jobs.nap") == 1)
    (child,) = worker.children()
    handle.revoke()  # so that it is not run again
    os.kill(child, signal.SIGKILL)

    assert until(lambda: metrics.scrape().total("upshot_tasks_running") == 0)


def test_a_time_limit_is_counted_though_the_process_ends(
    app: App, start_worker: StartWorker, metrics: Metrics
) -> None:
    start_worker("-c", "1")
    app.send_task("jobs.endless").exception(timeout=30)

    ended = {"task": "jobs.endless", "state": "FAILURE"}
    assert until(lambda: metrics.scrape()("upshot_tasks_finished_total", **ended) == 1)
    assert until(lambda: metrics.scrape().total("upshot_tasks_running") == 0)
    assert metrics.scrape()("upshot_task_run_seconds_count", task="jobs.endless") == 1


def test_without_a_folder_it_serves_queues_and_says_so(
    app: App, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR")
    serving = Metrics(project, "-Q", "mail")
    try:
        assert "only queues are served" in serving.said[0]
        assert serving.scrape().labels("upshot_queue_messages") >= {"mail", "ready"}
    finally:
        serving.process.send_signal(signal.SIGINT)
        assert serving.process.wait(30) == 0
        serving.process.communicate()


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--port", "0", "--host", "192.0.2.1"], 2, "nothing can listen on 192.0.2.1:0"),
        (["--port", "70000"], 2, "70000"),
        ([], 2, "--port"),
    ],
)
def test_what_cannot_be_served_is_said(
    options: list[str], code: int, said: str, app: App, project: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "upshot", "-A", "jobs", "metrics", *options],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr
