"""Expiry: which times are kept to, which are refused, and what comes after."""

from __future__ import annotations

import math
from functools import partial

import pytest

from upshot import clock
from upshot.client import ResultClient
from upshot.errors import ConfigError, ResultTimeoutError, UnsupportedError
from upshot.record import Record
from upshot.states import State
from upshot_conformance.clauses import clause
from upshot_conformance.concurrency import start
from upshot_conformance.fixtures import MakeHandle
from upshot_conformance.harness import Harness
from upshot_conformance.records import (
    ended,
    new_id,
    revoked,
    success,
    unfinished,
    value_of,
)
from upshot_conformance.selection import Target
from upshot_conformance.suite.lives import (
    MOMENT,
    WAYS_TO_READ,
    by_load,
    gone_in_time,
    outlive,
    store,
    there_until,
)
from upshot_conformance.suite.spy import Spy
from upshot_conformance.timing import Timing

DAY = 86_400.0

SLACK = 2.0
"""Seconds by which a service that counts whole ones may be wrong about what is left."""

LONG_TIMES = (1.5, 59.9, 3600.0, 7 * DAY, 30 * DAY - 1, 30 * DAY + 1, 31 * DAY, 365 * DAY)
"""Seconds; around 30 days, where memcached begins to take a number for a date."""


@clause("EX-3")
@pytest.mark.needs("expiry_resolution")
@pytest.mark.parametrize("seconds", [1e-9, 0.0004, 0.05, 0.33])
def test_a_fraction_of_a_second_is_kept_to(
    client: ResultClient, timing: Timing, seconds: float
) -> None:
    task_id = new_id()
    kept = store(client, [success(task_id, 1)], seconds)

    gone_in_time(partial(by_load, client, task_id), kept, timing)


@clause("EX-3")
@pytest.mark.needs("expiry_resolution")
def test_a_long_time_is_noted_by_the_service_as_it_was_given(
    client: ResultClient, harness: Harness, namespace: str
) -> None:
    for seconds in LONG_TIMES:
        before = harness.raw_objects(namespace)
        task_id = new_id()
        kept = store(client, [success(task_id, 1)], seconds)

        found = client.load(task_id)
        assert found or clock.monotonic() >= kept.earliest, f"{seconds} s: gone at once"

        began = clock.monotonic()
        left = {name: harness.ttl(name) for name in harness.raw_objects(namespace) - before}
        asked = clock.monotonic()
        assert left or asked >= kept.earliest, f"{seconds} s: the service has nothing"
        for name, seconds_left in left.items():
            assert seconds_left is not None, f"{seconds} s: {name} is kept for ever"
            early = (kept.earliest - asked) - seconds_left
            late = seconds_left - (kept.latest - began)
            assert early <= SLACK, f"{seconds} s: {name} goes {early:.1f} s too early"
            assert late <= SLACK, f"{seconds} s: {name} goes {late:.1f} s too late"


@clause("EX-3")
@pytest.mark.needs("expiry_resolution")
def test_a_time_beyond_all_dates_keeps_a_record(
    client: ResultClient, harness: Harness, namespace: str
) -> None:
    for seconds in (40 * 365 * DAY, 1e12):  # beyond 2038, and 31 000 years
        task_id = new_id()

        assert client.store(success(task_id, 1), expires=seconds)

        assert value_of(client.load(task_id)) == 1
        assert not client.store(success(task_id, 2), expires=seconds)
    for name in harness.raw_objects(namespace):
        left = harness.ttl(name)
        assert left is None or left > 10 * 365 * DAY, f"{name} goes after {left} s"


@clause("EX-3")
@pytest.mark.needs("expiry_resolution")
def test_none_keeps_a_record_for_ever(
    client: ResultClient, harness: Harness, namespace: str
) -> None:
    records = [success(new_id(), 1), revoked(new_id()), unfinished(new_id())]

    client.store_many(records, expires=None)
    client.store(success("hashed " * 20, 1), expires=None)

    left = {name: harness.ttl(name) for name in harness.raw_objects(namespace)}
    assert len(left) >= len(records) + 1
    assert {name: seconds for name, seconds in left.items() if seconds is not None} == {}


@clause("EX-3")
@pytest.mark.needs("expiry_resolution")
def test_none_as_a_client_s_setting_keeps_records_for_ever(
    target: Target, namespace: str, harness: Harness
) -> None:
    with ResultClient(target.make, url=target.url, namespace=namespace, expires=None) as client:
        client.store(success(new_id(), 1))
        client.store_many([success(new_id(), 2)])
        left = [harness.ttl(name) for name in harness.raw_objects(namespace)]

    assert left
    assert set(left) == {None}


REFUSED = (0, 0.0, -0.0, -1, -1.0, -0.001, -1e9, -math.inf, math.nan, math.inf)
"""What is no time to live; -1 means "for ever" or "as it was" elsewhere."""


@clause("EX-3")
@pytest.mark.needs("expiry_resolution")
@pytest.mark.parametrize("expires", REFUSED)
def test_no_time_to_live_is_refused_before_any_io(
    target: Target, namespace: str, expires: float
) -> None:
    spy = Spy.above(target.make())
    record = success(new_id(), 1)

    with ResultClient(lambda: spy, url=target.url, namespace=namespace) as client:
        with pytest.raises(ConfigError):
            client.store(record, expires=expires)
        with pytest.raises(ConfigError):
            client.store_many([record, unfinished(new_id())], expires=expires)
        assert spy.calls == []
        assert client.load(record.task_id) is None


@clause("EX-3")
@pytest.mark.needs("expiry_resolution")
@pytest.mark.parametrize("expires", REFUSED)
def test_a_client_that_is_set_to_no_time_to_live_stores_nothing(
    target: Target, namespace: str, client: ResultClient, expires: float
) -> None:
    record = success(new_id(), 1)

    with (
        pytest.raises(ConfigError),
        ResultClient(target.make, url=target.url, namespace=namespace, expires=expires) as other,
    ):
        other.store(record)

    assert client.load(record.task_id) is None


@clause("EX-4")
@pytest.mark.needs("expiry_resolution")
def test_an_expired_id_is_like_an_unknown_one(
    client: ResultClient, second_client: ResultClient, handle: MakeHandle, timing: Timing
) -> None:
    task_id = new_id()
    kept = store(client, [success(task_id, 1)], MOMENT)
    gone_in_time(partial(by_load, client, task_id), kept, timing)
    outlive(kept)

    for each in (client, second_client):
        asked = handle(task_id, each)
        assert each.load_many([task_id, task_id]) == [None, None]
        assert (asked.state, asked.ready(), asked.successful(), asked.failed()) == (
            State.PENDING, False, False, False,
        )  # fmt: skip
        assert asked.result is None
        assert asked.traceback is None
        for timeout in (0, timing.jitter):
            with pytest.raises(ResultTimeoutError):
                each.wait(task_id, timeout=timeout)
            with pytest.raises(ResultTimeoutError):
                asked.get(timeout=timeout)
    client.forget([task_id])


@clause("EX-4")
@pytest.mark.needs("expiry_resolution")
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (ended(new_id(), "SUCCESS"), unfinished(new_id(), State.QUEUED)),
        (ended(new_id(), "FAILURE"), success(new_id(), "anew")),
        (ended(new_id(), "REVOKED"), success(new_id(), "anew")),
        (unfinished(new_id(), attempt=3), unfinished(new_id(), attempt=1)),
        (unfinished(new_id(), State.RETRY, attempt=3), success(new_id(), "anew", attempt=2)),
    ],
    ids=["ended", "failed", "revoked", "running", "retried"],
)
@pytest.mark.parametrize("looked_at", [False, True], ids=["unseen", "seen"])
def test_an_expired_record_bars_no_new_one(
    client: ResultClient,
    second_client: ResultClient,
    timing: Timing,
    before: Record,
    after: Record,
    looked_at: bool,
) -> None:
    task_id, other = new_id(), new_id()
    before, after = before._replace(task_id=task_id), after._replace(task_id=task_id)
    kept = store(client, [before], MOMENT)
    if looked_at:
        gone_in_time(partial(by_load, client, task_id), kept, timing)
    outlive(kept)

    applied = second_client.store_many([success(other, 1), after, unfinished(task_id)])

    assert applied[:2] == [True, True], "a record that has expired was still in the way"
    assert not after.is_terminal or client.load(task_id) == after


@clause("EX-4")
@pytest.mark.needs("expiry_resolution")
def test_a_record_that_is_stored_anew_lives_for_its_own_time(
    client: ResultClient, timing: Timing
) -> None:
    task_id = new_id()
    first = store(client, [success(task_id, 1)], MOMENT)
    gone_in_time(partial(by_load, client, task_id), first, timing)
    outlive(first)

    second = store(client, [success(task_id, 2)], 2 * MOMENT)
    gone_in_time(partial(by_load, client, task_id), second, timing)
    outlive(second)

    third = store(client, [success(task_id, 3)], 100.0)
    there_until(partial(by_load, client, task_id), third, clock.monotonic() + 2 * MOMENT, timing)


@clause("EX-4")
@pytest.mark.needs("expiry_resolution")
def test_what_is_stored_anew_is_found_by_who_has_seen_it_go(
    client: ResultClient, second_client: ResultClient
) -> None:
    ids = {read: new_id() for read in WAYS_TO_READ}
    kept = store(client, [success(task_id, 1) for task_id in ids.values()], MOMENT)
    outlive(kept)
    assert [read.__name__ for read in WAYS_TO_READ if read(second_client, ids[read])] == []

    client.store_many([success(task_id, 2) for task_id in ids.values()])

    missed = [read.__name__ for read in WAYS_TO_READ if not read(second_client, ids[read])]
    assert missed == []


@clause("EX-4")
@pytest.mark.needs("expiry_resolution")
@pytest.mark.needs("intermediate")
def test_a_wait_over_an_expiry_ends_by_its_timeout(
    client: ResultClient, second_client: ResultClient, timing: Timing
) -> None:
    task_id = new_id()
    timeout = 2 * MOMENT
    kept = store(client, [unfinished(task_id)], MOMENT)
    began = clock.monotonic()
    waits = [
        start(partial(each.wait, task_id, timeout=timeout)) for each in (client, second_client)
    ]

    gone_in_time(partial(by_load, client, task_id), kept, timing)

    for wait in waits:
        with pytest.raises(ResultTimeoutError):
            wait.result(timing.within)
        assert clock.monotonic() - began >= timeout


@clause("EX-4")
@pytest.mark.needs("expiry_resolution")
@pytest.mark.needs("intermediate")
def test_a_wait_over_an_expiry_still_gets_the_result(
    client: ResultClient, second_client: ResultClient, timing: Timing
) -> None:
    task_id = new_id()
    kept = store(second_client, [unfinished(task_id)], MOMENT)
    waiting = start(partial(client.wait, task_id, timeout=3 * timing.within))
    gone_in_time(partial(by_load, second_client, task_id), kept, timing)
    outlive(kept)
    assert not waiting.done(), "an expiry ended the wait"

    second_client.store(success(task_id, "after all"))

    assert value_of(waiting.result(2 * timing.within)) == "after all"


@clause("EX-4")
@pytest.mark.lacks("expiry_resolution")
def test_a_time_to_live_that_cannot_be_kept_is_refused(client: ResultClient) -> None:
    task_id = new_id()

    with pytest.raises(UnsupportedError):
        client.store_many([success(task_id, 1)], expires=MOMENT)

    assert client.load(task_id) is None
