"""Servers that are down, killed and restarted while results are awaited."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from upshot import App, clock
from upshot.errors import ResultTimeoutError, ServiceClosedError

NOBODY = "redis://127.0.0.1:1/0"  # a reserved port: nothing listens there
LONG = 25.0  # seconds; what a call may take that is not bounded by its own timeout
SOON = 20.0  # seconds; far from `LONG`, also on a busy machine


@pytest.fixture
def hasty() -> App:
    """An app without services, whose waits look for a worker almost at once."""
    return App(broker=NOBODY, backend=NOBODY, operation_timeout=LONG, no_worker_warning=0.05)


def eventually(is_so: Callable[[], bool]) -> None:
    """Wait until something is so; fail after `SOON` seconds."""
    deadline = clock.Deadline(SOON)
    while not is_so():
        assert not deadline.expired
        clock.sleep(0.005)


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


def test_a_set_does_not_wait_longer_than_it_said_either(
    hasty: App, caplog: pytest.LogCaptureFixture
) -> None:
    began = clock.monotonic()

    with hasty as app, caplog.at_level(logging.DEBUG), pytest.raises(ResultTimeoutError):
        app.ResultSet(["lost", "gone"]).get(timeout=0.2)

    assert clock.monotonic() - began < SOON
    assert "could not look for workers" in caplog.text


def test_closing_while_the_service_is_down_ends_waits_and_threads(hasty: App) -> None:
    before = set(threading.enumerate())

    with hasty as app, ThreadPoolExecutor(2) as pool:
        handle = app.AsyncResult("lost")
        endless = pool.submit(handle.get)
        coroutine = pool.submit(asyncio.run, handle.aget())
        eventually(lambda: app.results.stats()["waiters"] == 1)
        app.close()

        assert isinstance(endless.exception(timeout=SOON), ServiceClosedError)
        assert isinstance(coroutine.exception(timeout=SOON), ServiceClosedError)

    eventually(lambda: set(threading.enumerate()) <= before)
