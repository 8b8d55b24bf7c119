"""Expiry: when a record goes, for whom, and what does not put it off."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from upshot import clock
from upshot.client import ResultClient
from upshot.record import Record
from upshot.states import State
from upshot_conformance.clauses import clause
from upshot_conformance.fixtures import MakeHandle
from upshot_conformance.harness import Harness
from upshot_conformance.records import (
    TERMINAL,
    ended,
    failure,
    new_id,
    success,
    unfinished,
    value_of,
)
from upshot_conformance.selection import Target
from upshot_conformance.suite import elsewhere
from upshot_conformance.suite.lives import (
    MOMENT,
    WAYS_TO_READ,
    Life,
    Read,
    by_load,
    by_wait,
    gone_in_time,
    outlive,
    store,
    there_until,
)
from upshot_conformance.timing import Timing

LONG = 100.0
"""Seconds to live for records that no test waits for."""

SLACK = 3.0
"""Seconds by which a service that counts whole ones may be wrong about what is left."""


@clause("EX-1", "EX-2")
@pytest.mark.needs("expiry_resolution")
@pytest.mark.parametrize("read", WAYS_TO_READ)
def test_a_record_is_there_for_its_time_and_then_gone(
    client: ResultClient, second_client: ResultClient, timing: Timing, read: Read
) -> None:
    first, second = new_id(), new_id()
    kept = store(client, [success(first, 1), success(second, 2)], MOMENT)

    gone_in_time(partial(read, client, first), kept, timing)
    gone_in_time(partial(read, second_client, second), kept, timing)


@clause("EX-1")
@pytest.mark.needs("expiry_resolution")
def test_a_record_that_nobody_looked_at_is_gone_at_the_first_look(client: ResultClient) -> None:
    records = {read.__name__: success(new_id(), 1) for read in WAYS_TO_READ}
    kept = store(client, records.values(), MOMENT)

    outlive(kept)

    found = [read.__name__ for read in WAYS_TO_READ if read(client, records[read.__name__].task_id)]
    assert found == []


@clause("EX-1")
@pytest.mark.needs("expiry_resolution")
@pytest.mark.needs("scan")
def test_a_listing_has_a_record_for_its_time_and_then_no_longer(
    client: ResultClient, second_client: ResultClient, timing: Timing
) -> None:
    short, long = success(new_id(), 1), success("hashed " * 20, 2)
    client.store(long, expires=LONG)
    kept = store(client, [short], MOMENT)

    for each in (client, second_client):
        gone_in_time(partial(listed, each, short), kept, timing)

    assert list(client.scan()) == [long]


def listed(client: ResultClient, record: Record) -> bool:
    return record in list(client.scan())


@clause("EX-1")
@pytest.mark.needs("expiry_resolution")
@pytest.mark.needs("intermediate")
def test_a_record_of_any_state_goes_in_time(client: ResultClient, timing: Timing) -> None:
    records = [ended(new_id(), state) for state in TERMINAL]
    records += [unfinished(new_id(), state) for state in ("QUEUED", "STARTED", "RETRY", "CUSTOM")]
    kept = store(client, records, MOMENT)

    def found() -> list[str]:
        return [record.state for record in records if client.load(record.task_id)]

    there_until(lambda: len(found()) == len(records), kept, kept.earliest, timing)
    outlive(kept)
    assert found() == []


@clause("EX-1")
@pytest.mark.needs("expiry_resolution")
def test_each_record_keeps_its_own_time(client: ResultClient, timing: Timing) -> None:
    short, long, ever = new_id(), new_id(), new_id()
    lasting = store(client, [success(long, 2)], LONG)
    client.store(success(ever, 3), expires=None)
    kept = store(client, [success(short, 1)], MOMENT)

    gone_in_time(partial(by_load, client, short), kept, timing)

    there_until(partial(by_load, client, long), lasting, kept.latest, timing)
    assert value_of(client.load(ever)) == 3


@clause("EX-1")
@pytest.mark.needs("expiry_resolution")
@pytest.mark.needs("intermediate")
def test_a_later_record_brings_its_own_time(client: ResultClient, timing: Timing) -> None:
    longer, shorter, ever = new_id(), new_id(), new_id()
    running = [unfinished(task_id) for task_id in (longer, ever)]
    first = store(client, running, MOMENT)
    client.store(unfinished(shorter), expires=LONG)

    client.store(success(ever, 3), expires=None)
    lasting = store(client, [success(longer, 1)], LONG)
    kept = store(client, [success(shorter, 2)], MOMENT)

    gone_in_time(partial(by_load, client, shorter), kept, timing)
    there_until(partial(by_load, client, longer), lasting, max(first.latest, kept.latest), timing)
    assert value_of(client.load(ever)) == 3


@clause("EX-1")
@pytest.mark.needs("expiry_resolution")
@pytest.mark.needs("shared")
def test_a_record_goes_in_time_although_its_process_has_ended(
    target: Target, client: ResultClient, namespace: str, timing: Timing
) -> None:
    task_id, lasting = new_id(), new_id()
    began = clock.monotonic()
    elsewhere.run(target, namespace, "store_for", seconds={task_id: MOMENT, lasting: LONG})
    kept = Life(began + MOMENT, clock.monotonic() + MOMENT + resolution(client))

    gone_in_time(partial(by_load, client, task_id), kept, timing)

    there_until(partial(by_load, client, lasting), Life(began + LONG, 0), kept.latest, timing)


def resolution(client: ResultClient) -> float:
    """Return the seconds after which an expired record is gone, with some to spare."""
    declared = client.capabilities
    return (declared.expiry_resolution or 0.0) + declared.visibility + 0.05


@clause("EX-2")
@pytest.mark.needs("expiry_resolution")
def test_reading_does_not_extend_what_the_service_has_noted(
    client: ResultClient, second_client: ResultClient, harness: Harness, namespace: str
) -> None:
    task_id = new_id()
    client.store(success(task_id, 1), expires=LONG)
    before = left(harness, namespace)

    for read in WAYS_TO_READ:
        assert read(client, task_id), read.__name__
        assert read(second_client, task_id), read.__name__

    assert_not_extended(before, left(harness, namespace))


def left(harness: Harness, namespace: str) -> dict[str, tuple[float | None, float]]:
    """Return what each server object has left to live, and when that was asked."""
    return {name: (harness.ttl(name), clock.monotonic()) for name in harness.raw_objects(namespace)}


def assert_not_extended(
    before: dict[str, tuple[float | None, float]], after: dict[str, tuple[float | None, float]]
) -> None:
    """Assert that the same objects expire at the same moments as before."""
    assert before
    assert after.keys() == before.keys()
    for name, (seconds, asked) in after.items():
        had, asked_before = before[name]
        assert seconds is not None, f"{name} is kept for ever"
        assert had is not None, f"{name} was to be kept for ever"
        moved = (asked + seconds) - (asked_before + had)
        assert abs(moved) <= SLACK, f"the expiry of {name} moved by {moved:.1f} s"


LATE: tuple[Callable[[str], Record], ...] = (
    partial(unfinished, state=State.QUEUED),
    partial(unfinished, state=State.STARTED, attempt=3),
    partial(success, value="late"),
    partial(failure, exc=ValueError("late")),
    partial(ended, state=State.REVOKED),
)
"""Records that are refused once a task has ended."""


AGAIN: tuple[Callable[[str], Record], ...] = (
    partial(success, value=1),
    *LATE[:3],
)
"""What a broker delivers twice, and a worker stores twice."""


@clause("EX-2")
@pytest.mark.needs("expiry_resolution")
@pytest.mark.parametrize("expires", [1000.0, 0.5, None], ids=["longer", "shorter", "for ever"])
def test_a_record_that_is_not_applied_does_not_move_what_the_service_has_noted(
    client: ResultClient,
    second_client: ResultClient,
    harness: Harness,
    namespace: str,
    expires: float | None,
) -> None:
    record = success(new_id(), 1)
    client.store(record, expires=LONG)
    before = left(harness, namespace)

    late = [make(record.task_id) for make in LATE]
    applied = [second_client.store(each, expires=expires) for each in [*late, record]]
    applied += client.store_many([record, *late, record], expires=expires)

    assert not any(applied)
    assert_not_extended(before, left(harness, namespace))


@clause("EX-2")
@pytest.mark.needs("expiry_resolution")
@pytest.mark.parametrize("again", AGAIN, ids=["the same", "QUEUED", "STARTED", "another end"])
def test_what_is_delivered_again_and_again_is_refused_until_the_record_is_gone(
    client: ResultClient, timing: Timing, again: Callable[[str], Record]
) -> None:
    task_id = new_id()
    kept = store(client, [success(task_id, 1)], MOMENT)

    def refused() -> bool:
        return not client.store(again(task_id), expires=MOMENT)

    gone_in_time(refused, kept, timing)


@clause("EX-2")
@pytest.mark.needs("expiry_resolution")
@pytest.mark.parametrize("expires", [LONG, None], ids=["longer", "for ever"])
def test_a_record_goes_in_time_whatever_was_refused_meanwhile(
    client: ResultClient, second_client: ResultClient, timing: Timing, expires: float | None
) -> None:
    record = success(new_id(), 1)
    kept = store(client, [record], MOMENT)

    late = [make(record.task_id) for make in LATE]
    applied = second_client.store_many([*late, record], expires=expires)
    in_time = clock.monotonic() < kept.earliest

    assert not in_time or not any(applied)
    if not any(applied):  # on a machine that slept, they came after its end, and live anew
        gone_in_time(partial(by_load, client, record.task_id), kept, timing)


@clause("EX-2")
@pytest.mark.needs("expiry_resolution")
def test_a_record_stays_for_its_time_whatever_was_refused_meanwhile(
    client: ResultClient, second_client: ResultClient, timing: Timing
) -> None:
    record = success(new_id(), 1)
    kept = store(client, [record], LONG)
    began = clock.monotonic()

    late = [make(record.task_id) for make in LATE]
    applied = second_client.store_many([*late, record], expires=0.05)

    assert not any(applied)
    moment = began + 0.1 + resolution(client)
    there_until(partial(by_wait, client, record.task_id), kept, moment, timing)


@clause("EX-2")
@pytest.mark.needs("expiry_resolution")
@pytest.mark.needs("intermediate")
def test_an_older_attempt_does_not_move_the_expiry(
    client: ResultClient, harness: Harness, namespace: str, handle: MakeHandle
) -> None:
    task_id = new_id()
    client.store(unfinished(task_id, attempt=2), expires=LONG)
    before = left(harness, namespace)

    late = [unfinished(task_id, attempt=1), unfinished(task_id, State.QUEUED)]
    applied = [client.store(each, expires=1000.0) for each in late]
    states = [handle(task_id).state for _ in range(3)]

    assert applied == [False, False]
    assert states == [State.STARTED] * 3
    assert_not_extended(before, left(harness, namespace))
