"""A thousand results, read or given up on: the service and this process are as before."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from upshot import App, registry
from upshot.errors import ResultTimeoutError, UnknownSchemeError
from upshot.result_set import ResultSet
from upshot.url import Url
from upshot_conformance.harness import Harness, UnavailableError

from .patience import PATIENCE, comes_to

MANY = 1000
CALLERS = 4  # threads that submit and wait at the same time


@pytest.fixture
def service_url(backend_url: str, tmp_path: Path) -> str:
    """The broker: the service itself if it can carry tasks, and a file otherwise."""
    try:
        registry.broker_class(Url.parse(backend_url))
    except UnknownSchemeError:
        return f"sqlite:///{tmp_path}/queue.db"
    return backend_url


@pytest.fixture
def serve(
    project: Path, start_worker: Callable[..., Any], backend_url: str, monkeypatch: Any
) -> Callable[[App], AbstractContextManager[None]]:
    """Run a worker for an app's tasks: a process, if another process can reach the service."""
    monkeypatch.setenv("UPSHOT_RESULT_BACKEND", backend_url)
    monkeypatch.setenv("UPSHOT_WORKER_LEASE", "60")  # no attempt may be lost to a busy machine
    monkeypatch.setenv("UPSHOT_OPERATION_TIMEOUT", str(PATIENCE / 2))

    @contextlib.contextmanager
    def serving(app: App) -> Generator[None]:
        if app.broker.current.capabilities.shared:
            worker = start_worker("-c", "1", "--threads", "4")
            yield
            assert worker.stop(PATIENCE) == 0, worker.output()
        else:

            @app.task(name="jobs.add")
            def add(x: int, y: int) -> int:
                return x + y

            with app.running():
                yield

    return serving


def submit_get_forget(app: App, count: int) -> None:
    """Send tasks from several threads; each waits for its own, and forgets it."""

    def one(n: int) -> int:
        handle = app.send_task("jobs.add", [n, n])
        value: int = handle.get(timeout=PATIENCE)
        handle.forget()
        return value

    with ThreadPoolExecutor(CALLERS) as callers:
        assert list(callers.map(one, range(count))) == [2 * n for n in range(count)]


def submit_and_give_up(app: App, count: int) -> None:
    """Send tasks to a queue that nobody serves, wait a moment for each, then forget them all."""

    def one(n: int) -> str:
        handle = app.send_task("jobs.add", [n, n], queue="nobody")
        with pytest.raises(ResultTimeoutError):
            handle.get(timeout=0.005)
        return handle.id

    with ThreadPoolExecutor(CALLERS) as callers:
        handles: ResultSet[int] = app.ResultSet(list(callers.map(one, range(count))))
    held = app.results.stats()
    assert (held["keys"], held["waiters"]) == (0, 0)
    handles.forget()
    purged = app.broker.call(lambda broker, seconds: broker.purge(["nobody"], seconds))
    assert purged == count


def subscriptions(harness: Harness, namespace: str) -> set[str]:
    """Return what the service says somebody listens to."""
    try:
        return harness.subscriptions(namespace)
    except UnavailableError:
        return set()


def connections(harness: Harness) -> int:
    """Return how many connections the service says it has."""
    try:
        return harness.connections()
    except UnavailableError:
        return 0


@pytest.mark.timeout(400)
def test_a_thousand_results_read_and_a_thousand_given_up_leave_nothing(
    harness: Harness, serve: Callable[[App], AbstractContextManager[None]]
) -> None:
    opened = connections(harness)
    with App(no_worker_warning=None) as app, serve(app):
        submit_get_forget(app, 1)  # makes what a service needs once: tables, queues, connections
        submit_and_give_up(app, 1)
        objects = harness.raw_objects("")

        submit_get_forget(app, MANY)
        submit_and_give_up(app, MANY)

        comes_to(lambda: harness.raw_objects("") - objects, set[str]())
        comes_to(lambda: subscriptions(harness, app.settings.namespace), set[str]())
        gc.collect()  # the error of a wait whose service was away refers to itself by its frames
        assert app.outstanding() == []
        held = app.results.stats()
        assert held["threads"] <= 1
        assert held["listeners"] <= 1
    comes_to(lambda: connections(harness) <= opened, True)
