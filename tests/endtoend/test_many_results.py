"""Ten thousand results at once: bounded connections and threads, and nothing left behind."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from upshot import App
from upshot.execution import TaskSpec
from upshot.task import Task
from upshot_conformance.harnesses.redis import RedisHarness
from upshot_conformance.harnesses.sqlite import SqliteHarness


@pytest.fixture
def app(project: Path) -> Iterator[App]:
    """An app in this process, on the service under test."""
    with App("many") as app:
        yield app


def add(x: int, y: int) -> int:
    """The caller's side of a task that the worker has under the name `jobs.add`."""
    return x + y


def descriptors() -> int:
    """Return how many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))


def left_behind(app: App) -> set[str]:
    """Return what the service still holds of the app's results, asked behind upshot's back."""
    url = app.backend_url
    harness = RedisHarness(url) if url.scheme == "redis" else SqliteHarness(url)
    return harness.raw_objects(app.settings.namespace)


@pytest.mark.timeout(300)
def test_ten_thousand_results_come_over_one_connection(
    app: App, start_worker: Callable[..., Any]
) -> None:
    app.results.load("warm-up")
    app.broker.call(lambda broker, seconds: broker.survey(["default"], seconds))
    fds, threads = descriptors(), threading.active_count()
    worker = start_worker("-c", "2")
    task = Task[..., int, int](TaskSpec(name="jobs.add", function=add), app)
    handles = task.map([(n, 1) for n in range(10_000)])
    peak_fds = peak_threads = 0
    total = 0

    for handle in handles.as_completed(timeout=240):
        total += handle.get()
        if total % 500 == 0:
            peak_fds = max(peak_fds, descriptors())
            peak_threads = max(peak_threads, threading.active_count())

    print(f"descriptors {fds} -> {peak_fds}, threads {threads} -> {peak_threads}")
    assert total == sum(range(1, 10_001))
    assert peak_fds - fds <= 6
    assert peak_threads - threads <= 1
    handles.forget()
    assert worker.stop() == 0
    assert app.results.stats()["keys"] == 0
    assert left_behind(app) == set()
    app.close()
    assert descriptors() <= fds
