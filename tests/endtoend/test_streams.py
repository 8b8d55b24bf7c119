"""Streams over every service: a worker yields, readers read, and what is forgotten is gone."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from upshot import App, State, clock
from upshot.errors import ResultForgottenError, TaskRevokedError, UnsupportedError
from upshot.settings import SETTINGS
from upshot_conformance.harness import Harness

from .conftest import AppOpener
from .patience import PATIENCE, comes_to

PAGE = Path(__file__).resolve().parents[2] / "docs" / "streaming.md"
SETTING = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)


@pytest.fixture
def closed() -> threading.Event:
    """Set when a generator was closed."""
    return threading.Event()


@pytest.fixture
def app(harness: Harness, open_app: AppOpener, backend_url: str, closed: threading.Event) -> App:
    """An app with two tasks that yield."""
    app: App = open_app(backend_url)

    @app.task(name="count")
    def count(items: int, pause: float) -> Iterator[int]:
        try:
            for number in range(items):
                yield number
                clock.sleep(pause)
        finally:
            closed.set()

    @app.task(name="fail")
    def fail() -> Iterator[str]:
        yield "before"
        raise ValueError("after one")

    if not app.results.capabilities.streams:
        with pytest.raises(UnsupportedError, match="keeps no streams"):
            count.delay(1, 0)
        pytest.skip("not applicable: it refuses streams, as it declares")
    return app


def test_what_a_worker_yields_comes_home(app: App, harness: Harness) -> None:
    with app.running():
        counted = app.send_task("count", (1500, 0))
        failed = app.send_task("fail")
        slow = app.send_task("count", (20, 0.02))

        async def read() -> list[int]:
            return [item async for item in slow.stream(timeout=PATIENCE)]

        assert list(counted.stream(timeout=PATIENCE)) == list(range(1500))
        assert counted.get(timeout=PATIENCE) is None
        assert asyncio.run(read()) == list(range(20))
        items = iter(failed.stream(timeout=PATIENCE))
        assert next(items) == "before"
        with pytest.raises(ValueError, match="after one"):
            next(items)
        assert app.AsyncResult(counted.id).state == State.SUCCESS
        for each in (counted, failed, slow):
            each.forget()

    assert harness.raw_objects(app.settings.namespace) == set()


def test_forgetting_a_stream_that_runs_leaves_nothing_but_its_end(
    app: App, harness: Harness, closed: threading.Event
) -> None:
    with app.running():
        sent = app.send_task("count", (1_000_000, 0.002))
        items = iter(sent.stream(timeout=PATIENCE))
        assert [next(items) for _ in range(50)] == list(range(50))

        sent.forget()

        assert closed.wait(PATIENCE), "the task runs on"
        comes_to(lambda: sent.state, State.FAILURE)
        with pytest.raises(ResultForgottenError):
            list(items)
        keys = app.results.keys.items(sent.id, range(2000))
        assert set(app.results.reader.bodies(keys)) == {None}
        sent.forget()

    assert harness.raw_objects(app.settings.namespace) == set()


def test_a_stream_that_is_revoked_is_closed(app: App, closed: threading.Event) -> None:
    with app.running():
        sent = app.send_task("count", (1_000_000, 0.002))
        items = iter(sent.stream(timeout=PATIENCE))
        next(items)

        assert sent.revoke()

        assert closed.wait(PATIENCE), "the task runs on"
        with pytest.raises(TaskRevokedError):
            list(items)
        sent.forget()


YIELDING = """
import os, time
from upshot import App
app = App()

@app.task
def slow(items):
    for number in range(items):
        time.sleep(0.01)
        yield [number, os.getpid()]
"""


def test_a_stream_outlives_the_worker_that_began_it(
    start_worker: Callable[..., object], project: Path
) -> None:
    (project / "jobs.py").write_text(YIELDING)
    start_worker("-c", "1")
    with App() as app:
        sent = app.send_task("jobs.slow", (150,))
        seen: list[tuple[int, int]] = []
        for number, pid in sent.stream(timeout=PATIENCE):
            seen.append((number, pid))
            if number == 40:
                os.kill(pid, signal.SIGKILL)

        assert [number for number, _ in seen] == list(range(150))
        assert len({pid for _, pid in seen}) == 2
        assert sent.attempts == 2
        sent.forget()
        left = app.results.backend.scan(app.settings.namespace, PATIENCE)
        of_queues = f"{app.settings.namespace}/"  # of the broker, where it is the same service
        assert [key for key in left if not key.startswith(of_queues)] == []


def test_the_page_about_streams_is_true(tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "chat.py").write_text("\n\n".join(blocks), encoding="utf-8")

    done = subprocess.run(
        [sys.executable, "chat.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    end = lines.index("SUCCESS {'step': 'reading', 'current': 500, 'total': 500}")
    # How many of the states before it are seen depends on the machine; it may be none.
    assert all(line == "QUEUED None" or line.startswith("STARTED ") for line in lines[:end])
    assert "sends results to the process" in lines[-1] or "keeps no streams" in lines[-1]
    assert len(SETTING.findall(text)) == 2
    assert set(SETTING.findall(text)) <= SETTINGS.keys()
