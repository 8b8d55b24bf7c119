"""A thousand results, read or given up on: the service and this process are as before."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from upshot import App, registry
from upshot.errors import ResultTimeoutError, UnknownSchemeError
from upshot.result_set import ResultSet
from upshot.url import Url
from upshot_conformance.harness import Harness, UnavailableError
from upshot_conformance.resources import open_descriptors

from .patience import PATIENCE, comes_to

MANY = 1000
CALLERS = 4  # threads that submit and wait at the same time

AppOpener = Callable[..., App]


def pair(backend: str, open_app: AppOpener) -> tuple[App, App]:
    """Open an app to submit tasks and one to run them; the service carries them if it can."""
    try:
        registry.broker_class(Url.parse(backend))
    except UnknownSchemeError:
        app, worker = open_app(backend), open_app(backend)
    else:
        app, worker = open_app(backend, broker=backend), open_app(backend, broker=backend)

    @worker.task(name="jobs.double")
    def double(n: int) -> int:
        return 2 * n

    assert double.name == "jobs.double"
    return app, worker


def submit_get_forget(app: App, count: int) -> None:
    """Send tasks from several threads; each waits for its own, and forgets it."""

    def one(n: int) -> int:
        handle = app.send_task("jobs.double", [n])
        value: int = handle.get(timeout=PATIENCE)
        handle.forget()
        return value

    with ThreadPoolExecutor(CALLERS) as callers:
        assert list(callers.map(one, range(count))) == [2 * n for n in range(count)]


def submit_and_give_up(app: App, count: int) -> ResultSet[int]:
    """Send tasks to a queue that nobody serves, wait a moment for each, and return them all."""

    def one(n: int) -> str:
        handle = app.send_task("jobs.double", [n], queue="nobody")
        with pytest.raises(ResultTimeoutError):
            handle.get(timeout=0.005)
        return handle.id

    with ThreadPoolExecutor(CALLERS) as callers:
        return app.ResultSet(list(callers.map(one, range(count))))


def run(backend: str, open_app: AppOpener, harness: Harness, count: int) -> None:
    """Do both, `count` times each; look that no wait is left over, and close everything."""
    app, worker = pair(backend, open_app)
    with worker.running(threads=2):
        submit_get_forget(app, count)
    unfinished = submit_and_give_up(app, count)
    held = app.results.stats()
    assert (held["keys"], held["waiters"]) == (0, 0)
    assert held["threads"] <= 1
    assert held["listeners"] <= 1
    comes_to(lambda: subscriptions(harness, app.settings.namespace), set[str]())
    unfinished.forget()
    assert app.outstanding() == []
    removed = app.broker.call(lambda broker, seconds: broker.purge(["default", "nobody"], seconds))
    assert removed == count
    app.close()
    worker.close()


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
    backend_url: str, harness: Harness, open_app: AppOpener
) -> None:
    opened = connections(harness)
    run(backend_url, open_app, harness, 1)  # makes what a service needs once: tables, queues
    objects = harness.raw_objects("")
    descriptors, threads = len(open_descriptors()), set(threading.enumerate())

    run(backend_url, open_app, harness, MANY)

    comes_to(lambda: harness.raw_objects("") - objects, set[str]())
    comes_to(lambda: connections(harness) <= opened, True)
    comes_to(lambda: len(open_descriptors()) <= descriptors, True)
    comes_to(lambda: set(threading.enumerate()) - threads, set[threading.Thread]())
