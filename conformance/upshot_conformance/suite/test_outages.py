"""Services that are killed, restarted and frozen: only with --disruptive."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from functools import partial

import pytest

from upshot import clock
from upshot.client import ResultClient
from upshot.errors import ServiceError
from upshot_conformance.clauses import clause
from upshot_conformance.concurrency import start
from upshot_conformance.fixtures import Clients
from upshot_conformance.harness import Harness
from upshot_conformance.records import new_id, success, value_of
from upshot_conformance.suite.sending import (
    assert_works,
    everybody_waits,
    submitted,
    values,
    wait_in_a_loop,
)
from upshot_conformance.timing import Timing

pytestmark = pytest.mark.disruptive

HASTY = 0.6  # seconds that a call gets where its timeout is awaited
LONG = 60.0  # seconds; every service here is back long before


@contextlib.contextmanager
def down(harness: Harness) -> Generator[None]:
    """The service has crashed; it is back afterwards, whatever happens."""
    harness.crash()
    try:
        yield
    finally:
        harness.recover()


@contextlib.contextmanager
def frozen(harness: Harness) -> Generator[None]:
    """The service answers nobody; it does afterwards, whatever happens."""
    harness.freeze()
    try:
        yield
    finally:
        harness.thaw()


@clause("FT-1")
def test_waits_outlive_a_crash_of_the_service(
    client: ResultClient, harness: Harness, timing: Timing
) -> None:
    ids = submitted(client, 3)
    waits = everybody_waits(client, ids, timing, timeout=LONG)

    with down(harness):
        timing.throughout(lambda: True)
    assert_works(client, timing)
    client.store_many([success(task_id, task_id) for task_id in ids])

    for found in values(waits, LONG + timing.within):
        assert found == dict(zip(ids, ids, strict=True))


@clause("FT-1", "FT-5")
def test_calls_to_a_service_that_is_down_end_in_time_and_work_when_it_is_back(
    clients: Clients, harness: Harness, timing: Timing
) -> None:
    client = clients.open(timeout=HASTY)
    known, unknown = submitted(client, 2)
    client.store(success(known, 1))

    with down(harness):
        assert_in_time(client, known, unknown, timing)
    assert_works(client, timing)


@clause("FT-1", "FT-5")
def test_calls_to_a_frozen_service_end_in_time_and_work_when_it_goes_on(
    clients: Clients, harness: Harness, timing: Timing
) -> None:
    client = clients.open(timeout=HASTY)
    known, unknown = submitted(client, 2)
    client.store(success(known, 1))
    waits = everybody_waits(client, [unknown], timing, timeout=LONG)

    with frozen(harness):
        assert_in_time(client, known, new_id(), timing)
    assert_works(client, timing)
    client.store(success(unknown, "after all"))

    for found in values(waits, LONG + timing.within):
        assert found == {unknown: "after all"}


@clause("FT-3")
@pytest.mark.needs("persistent")
def test_what_was_confirmed_before_a_crash_is_there_afterwards(
    clients: Clients, client: ResultClient, harness: Harness, timing: Timing
) -> None:
    confirmed: list[str] = []

    def store_until_it_fails() -> None:
        with contextlib.suppress(ServiceError):
            while True:
                task_id = new_id()
                writer.store(success(task_id, task_id))
                confirmed.append(task_id)

    batch = [new_id() for _ in range(100)]
    writer = clients.open(timeout=HASTY)
    client.store_many([success(task_id, task_id) for task_id in batch])
    storing = start(store_until_it_fails)
    timing.eventually(lambda: len(confirmed) >= 20 or storing.done())

    try:
        with down(harness):
            storing.result(HASTY + 2 * timing.within)
    finally:  # nothing may be stored any more when the test is over, applicable or not
        writer.close()
        storing.exception(HASTY + 2 * timing.within)

    assert_works(client, timing)
    assert len(confirmed) >= 20
    for each in (client, clients.open()):
        missing = [t for t in [*batch, *confirmed] if each.load(t) is None]
        assert missing == [], f"{len(missing)} confirmed records did not outlive the crash"


@clause("FT-3")
def test_what_was_not_stored_for_a_crash_is_not_said_to_be(
    clients: Clients, client: ResultClient, harness: Harness, timing: Timing
) -> None:
    hasty = clients.open(timeout=HASTY)
    task_id, before = submitted(hasty, 2)
    hasty.store(success(before, 0))

    with down(harness):
        storing = start(partial(hasty.store, success(task_id, "lost")))
        error = storing.exception(HASTY + 2 * timing.within)

    assert isinstance(error, ServiceError), "a store was confirmed while the service was down"
    assert_works(client, timing)


def assert_in_time(client: ResultClient, known: str, unknown: str, timing: Timing) -> None:
    """Assert that every call ends by its timeout, with an error or an answer."""
    calls: list[Callable[[], object]] = [
        partial(client.load, known),
        partial(client.load_many, [known, unknown]),
        partial(client.store, success(unknown, 2)),
        partial(client.forget, [new_id()]),
        partial(client.wait, unknown, timeout=HASTY),
        partial(wait_in_a_loop, client, unknown, timeout=HASTY),
    ]
    began = clock.monotonic()
    running = [start(call) for call in calls]
    errors = [each.exception(HASTY + 4 * timing.within) for each in running]

    assert clock.monotonic() - began < HASTY + timing.within, "a call took longer than it may"
    names = {type(error).__name__ for error in errors}
    assert names <= {"NoneType", "ResultTimeoutError", "ServiceUnavailableError"}


@clause("FT-3")
def test_a_store_that_cannot_be_done_raises_in_time_and_leaves_nothing(
    clients: Clients, harness: Harness, timing: Timing
) -> None:
    client = clients.open(timeout=HASTY)
    known, unknown = submitted(client, 2)
    client.store(success(known, 1))

    with harness.writes_blocked():
        began = clock.monotonic()
        with pytest.raises(ServiceError):
            client.store(success(unknown, 2))
        is_forgotten = succeeds(partial(client.forget, [known]))  # it may need no more than this
        took = clock.monotonic() - began

    assert took <= 2 * HASTY + timing.within
    left = client.load(known)
    assert left is None if is_forgotten else value_of(left) == 1
    assert client.store(success(unknown, 3)), "the refused one was kept"
    assert value_of(client.load(unknown)) == 3


def succeeds(call: Callable[[], object]) -> bool:
    """Tell whether a call is done; False if the service refuses it."""
    try:
        call()
    except ServiceError:
        return False
    return True
