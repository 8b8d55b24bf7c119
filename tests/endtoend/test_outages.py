"""Servers that are down, killed and restarted while results are awaited."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from upshot import App, clock
from upshot.errors import ResultTimeoutError, ServiceClosedError, ServiceUnavailableError
from upshot.record import Record
from upshot.request import Request
from upshot.states import State

from .patience import PATIENCE, comes_to
from .services import SERVICES, PrivateServer
from .storing import storing

SERVERS = [pytest.param(each.server, id=each.name) for each in SERVICES if each.server]
WAITS = 100
DEADLINE = 2 * PATIENCE  # seconds of each wait; servers are back long before

NOBODY = "redis://127.0.0.1:1/0"  # a reserved port: nothing listens there
LONG = 25.0  # seconds; what a call may take that is not bounded by its own timeout
SOON = 20.0  # seconds; far from `LONG`, also on a busy machine


@pytest.fixture
def hasty() -> App:
    """An app without services, whose waits look for a worker almost at once."""
    return App(broker=NOBODY, backend=NOBODY, operation_timeout=LONG, no_worker_warning=0.05)


def test_a_wait_does_not_end_late_for_asking_a_dead_service_why(hasty: App) -> None:
    began = clock.monotonic()

    with hasty as app, pytest.raises(ResultTimeoutError, match="its state cannot be read"):
        app.AsyncResult("lost").get(timeout=0.2)

    assert clock.monotonic() - began < SOON


def test_a_coroutine_does_not_wait_longer_than_it_said_either(hasty: App) -> None:
    began = clock.monotonic()

    with hasty as app, pytest.raises(ResultTimeoutError, match="its state cannot be read"):
        asyncio.run(app.AsyncResult("lost").aget(timeout=0.2))

    assert clock.monotonic() - began < SOON


def test_a_set_does_not_wait_longer_than_it_said_either(hasty: App) -> None:
    began = clock.monotonic()

    with hasty as app, pytest.raises(ResultTimeoutError, match="cannot be reached"):
        app.ResultSet(["lost", "gone"]).get(timeout=0.2)

    assert clock.monotonic() - began < SOON


def test_a_set_does_not_wait_longer_for_asking_a_service_that_has_just_gone(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = App(broker=NOBODY, backend="memory://", operation_timeout=LONG, no_worker_warning=0.05)

    def load(*_: object, **__: object) -> None:
        raise ServiceUnavailableError("gone since the first look")

    with app, caplog.at_level(logging.DEBUG):
        monkeypatch.setattr(app.results, "load", load)
        began = clock.monotonic()
        with pytest.raises(ResultTimeoutError):
            app.ResultSet(["lost", "gone"]).get(timeout=0.2)

    assert clock.monotonic() - began < SOON
    assert "could not look for workers" in caplog.text


def test_a_set_does_not_wait_longer_for_asking_a_silent_broker_for_workers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        broker = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        app = App(
            broker=broker, backend="memory://", operation_timeout=LONG, no_worker_warning=0.05
        )
        with app:
            app.results.store(Record("lost", State.QUEUED, queue="jobs"))
            began = clock.monotonic()
            with pytest.raises(ResultTimeoutError):
                app.ResultSet(["lost", "gone"]).get(timeout=0.6)
            assert clock.monotonic() - began < SOON

        silent.settimeout(PATIENCE)
        asked, _ = silent.accept()
        asked.close()


def test_closing_while_the_service_is_down_ends_waits_and_threads(hasty: App) -> None:
    before = set(threading.enumerate())

    with ThreadPoolExecutor(2) as pool, hasty as app:
        handle = app.AsyncResult("lost")
        endless = pool.submit(handle.get)
        coroutine = pool.submit(asyncio.run, handle.aget())
        comes_to(lambda: app.results.stats()["waiters"], 2)
        app.close()

        assert isinstance(endless.exception(timeout=SOON), ServiceClosedError)
        assert isinstance(coroutine.exception(timeout=SOON), ServiceClosedError)

    comes_to(lambda: set(threading.enumerate()) - before, set[threading.Thread]())


@pytest.mark.timeout(400)
@pytest.mark.parametrize("make", SERVERS)
def test_a_hundred_waits_outlive_their_server(
    make: Callable[[], PrivateServer], open_app: Callable[..., App]
) -> None:
    """Half of the results are stored before it is killed, the others when it is back.

    A service that keeps records across a restart shows the first half still there. From one that
    does not, a worker would have to store them again, as it does here.
    """
    with ExitStack() as stack:
        server, pool = stack.enter_context(make()), stack.enter_context(ThreadPoolExecutor(WAITS))
        app = open_app(server.url)
        hasty = open_app(server.url, operation_timeout=LONG, no_worker_warning=0.05)
        store = stack.enter_context(storing(app))
        handles = app.send([Request(name="jobs.n", args=(n,)) for n in range(WAITS)])
        values = {handle.id: n for n, handle in enumerate(handles)}
        waits: list[Future[int]] = [pool.submit(each.get, timeout=DEADLINE) for each in handles]
        comes_to(lambda: app.results.stats()["waiters"], WAITS)
        unfinished = hasty.send_task("jobs.n")
        assert hasty.results.load(unfinished.id)  # it is connected
        first = dict(list(values.items())[: WAITS // 2])
        assert all(store(first))

        server.kill()
        began = clock.monotonic()
        with pytest.raises(ResultTimeoutError):
            unfinished.get(timeout=0.2)
        assert clock.monotonic() - began < SOON
        server.restart()
        applied = store(values)

        assert [wait.result(timeout=DEADLINE) for wait in waits] == list(range(WAITS))
        can = app.results.capabilities
        if can.persistent and can.shared:  # what is carried is in this process in any case
            assert applied == [task_id not in first for task_id in values]
        assert [handle.get(timeout=PATIENCE) for handle in handles] == list(range(WAITS))
        another = app.send_task("jobs.n")
        assert store({another.id: "as before"}) == [True]
        assert another.get(timeout=PATIENCE) == "as before"
        held = app.results.stats()
        assert (held["keys"], held["waiters"]) == (0, 0)
