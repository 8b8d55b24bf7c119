"""Waiting for a result store that is away: how long, how often, and how loud."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator

import pytest

from upshot import clock
from upshot.engine.patience import Patience
from upshot.errors import (
    PayloadTooLargeError,
    ServiceClosedError,
    ServiceError,
    ServiceRejectedError,
    ServiceUnavailableError,
)

LONG = 60.0  # seconds; far more than any of these tests takes on a busy machine


def refusing(*errors: Exception) -> Callable[[], str]:
    """Return an operation that raises each of `errors`, and succeeds after that."""
    left: Iterator[Exception] = iter(errors)

    def operation() -> str:
        for error in left:
            raise error
        return "stored"

    return operation


@pytest.mark.parametrize("kind", [ServiceUnavailableError, ServiceRejectedError])
def test_every_refusal_is_waited_for_and_told_once(
    kind: type[ServiceError], caplog: pytest.LogCaptureFixture
) -> None:
    operation = refusing(*[kind("no")] * 4)

    done = Patience("t1 jobs.add").repeat(operation, "not yet", stopping=threading.Event())

    assert done == "stored"
    assert [record.getMessage() for record in caplog.records] == [
        "task t1 jobs.add: not yet, and tried again: no"
    ]


def test_only_what_may_end_by_itself_is_a_mere_warning(caplog: pytest.LogCaptureFixture) -> None:
    for error in (ServiceUnavailableError("away"), ServiceRejectedError("no permission")):
        Patience("t").repeat(refusing(error), "not yet", stopping=threading.Event())

    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.ERROR]


def test_it_ends_with_its_limit() -> None:
    operation = refusing(*[ServiceUnavailableError("no")] * 1000)

    with pytest.raises(ServiceUnavailableError):
        Patience("t").repeat(operation, "not yet", stopping=threading.Event(), limit=0.3)


def test_it_ends_at_once_when_the_process_does() -> None:
    stopping = threading.Event()
    operation = refusing(*[ServiceUnavailableError("no")] * 1000)
    began = clock.monotonic()
    threading.Timer(0.3, stopping.set).start()

    with pytest.raises(ServiceUnavailableError):
        Patience("t").repeat(operation, "not yet", stopping=stopping)
    assert clock.monotonic() - began < LONG


@pytest.mark.parametrize("error", [ServiceClosedError("closed"), PayloadTooLargeError("long")])
def test_what_no_waiting_helps_is_raised_at_once(error: Exception) -> None:
    with pytest.raises(type(error)):
        Patience("t").repeat(refusing(error), "not yet", stopping=threading.Event())
