"""Clients whose own clocks are wrong: leases and expiry go by the server's.

The services and the tests are on one machine, so a right clock is one that says what theirs says.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator

import pytest

from upshot import clock
from upshot.backend import StoredRecord
from upshot.broker import Delivery, QueuedMessage
from upshot_backends.sql.broker import SqlBroker
from upshot_backends.sql.readings import ClockReading
from upshot_backends.sql.results import SqlBackend

BackendOpener = Callable[..., SqlBackend]
BrokerOpener = Callable[..., SqlBroker]
RecordMaker = Callable[..., StoredRecord]

HOUR = 3600.0  # seconds


@contextlib.contextmanager
def wall_clock_ahead(seconds: float) -> Generator[None]:
    """Set the wall clock of this process; for good, as far as whoever reads it meanwhile knows."""
    true = clock.now
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "now", lambda: true() + seconds)
        yield


@contextlib.contextmanager
def asleep_for(seconds: float) -> Generator[None]:
    """Leave time out of the monotonic clock, as a machine does that was suspended."""
    true = clock.monotonic
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "monotonic", lambda: true() - seconds)
        yield


def fetch(broker: SqlBroker, worker: str, *, lease: float = 30.0) -> list[Delivery]:
    return list(broker.fetch(["q"], limit=1, wait=0.0, lease=lease, worker=worker))


@pytest.fixture(params=[2 * HOUR, -2 * HOUR], ids=["fast", "slow"])
def wrong(request: pytest.FixtureRequest) -> float:
    """Seconds by which a clock is wrong."""
    seconds: float = request.param
    return seconds


@pytest.mark.parametrize("count", [1, 2], ids=["alone", "in a batch"])
def test_a_record_expires_when_the_server_says_so_whoever_reads(
    open_backend: BackendOpener, record: RecordMaker, wrong: float, count: int
) -> None:
    writer, reader = open_backend(), open_backend()
    kept, gone = [f"kept{n}" for n in range(count)], [f"gone{n}" for n in range(count)]
    writer.store([record(key, expires=60.0) for key in kept], 10.0)
    writer.store([record(key, expires=0.001) for key in gone], 10.0)
    clock.sleep(0.05)

    with wall_clock_ahead(wrong):
        assert reader.load(kept, 10.0) == [b"body"] * count
        assert reader.load(gone, 10.0) == [None] * count
        assert list(reader.scan("", 10.0)) == kept
        assert reader.store([record(key, b"new", rank=1) for key in kept], 10.0) == [False] * count
        assert reader.sweep(10, 10.0) == 0  # its first store has done it
    assert list(writer.scan("", 10.0)) == kept


@pytest.mark.parametrize("count", [1, 2], ids=["alone", "in a batch"])
def test_a_record_expires_when_the_server_says_so_whoever_wrote_it(
    open_backend: BackendOpener, record: RecordMaker, wrong: float, count: int
) -> None:
    writer, reader = open_backend(), open_backend()
    kept, gone = [f"kept{n}" for n in range(count)], [f"gone{n}" for n in range(count)]
    with wall_clock_ahead(wrong):
        writer.store([record(key, expires=60.0) for key in kept], 10.0)
        writer.store([record(key, expires=0.001) for key in gone], 10.0)
    clock.sleep(0.05)

    assert reader.load([*kept, *gone], 10.0) == [b"body"] * count + [None] * count


def test_records_that_come_with_messages_expire_when_the_server_says_so(
    broker: SqlBroker, backend: SqlBackend, record: RecordMaker, wrong: float
) -> None:
    message = QueuedMessage(message_id="m", queue="q", body=b"")
    with wall_clock_ahead(wrong):
        broker.publish([message], [record("kept", rank=1, barrier=1, expires=60.0)], 10.0)
        broker.publish([message], [record("gone", rank=1, barrier=1, expires=0.001)], 10.0)
    clock.sleep(0.05)

    assert backend.load(["kept", "gone"], 10.0) == [b"body", None]


@pytest.mark.parametrize("ahead", [60.0, 2 * HOUR])
def test_a_worker_whose_clock_is_fast_takes_nothing_from_one_whose_clock_is_right(
    open_broker: BrokerOpener, ahead: float
) -> None:
    right, fast = open_broker(), open_broker()
    right.publish([QueuedMessage(message_id="m", queue="q", body=b"")], (), 10.0)
    (held,) = fetch(right, "right")

    with wall_clock_ahead(ahead):
        taken = fetch(fast, "fast")
        status = fast.survey(["q"], 10.0)["q"]
        purged = fast.purge(["q"], 10.0)

    assert (taken, purged) == ([], 0)
    assert (status.ready, status.delayed, status.leased) == (0, 0, 1)
    assert status.workers == ("fast", "right")
    assert list(right.beat("right", ["q"], [held], lease=30.0, timeout=10.0)) == [True]


def test_a_lease_of_a_worker_whose_clock_is_wrong_is_as_long_as_said(
    open_broker: BrokerOpener, wrong: float
) -> None:
    right, other = open_broker(), open_broker()
    right.publish([QueuedMessage(message_id="m", queue="q", body=b"")], (), 10.0)
    with wall_clock_ahead(wrong):
        (held,) = fetch(other, "other")

    assert fetch(right, "right") == []
    with wall_clock_ahead(wrong):
        other.beat("other", ["q"], [held], lease=0.001, timeout=10.0)
    clock.sleep(0.05)
    assert [delivery.deliveries for delivery in fetch(right, "right")] == [2]


def test_an_eta_is_on_the_clock_of_whoever_sent_it(broker: SqlBroker) -> None:
    with wall_clock_ahead(-HOUR):
        message = QueuedMessage(message_id="past", queue="q", body=b"", eta=clock.now() + 60.0)
        broker.publish([message], (), 10.0)
    with wall_clock_ahead(HOUR):
        message = QueuedMessage(message_id="future", queue="q", body=b"", eta=clock.now())
        broker.publish([message], (), 10.0)

        assert [delivery.message_id for delivery in fetch(broker, "w")] == ["past"]
        assert fetch(broker, "w") == []


def test_the_server_is_asked_again_after_its_client_slept(
    open_backend: BackendOpener, record: RecordMaker
) -> None:
    writer, reader = open_backend(), open_backend()
    reader.load(["a"], 10.0)
    writer.store([record("b", expires=60.0)], 10.0)  # the first one sweeps
    writer.store([record("a", expires=0.001)], 10.0)
    clock.sleep(0.05)

    with asleep_for(2 * HOUR):
        assert reader.load(["a", "b"], 10.0) == [None, b"body"]


def test_a_reading_is_doubted_after_a_minute() -> None:
    reading = ClockReading(1e9, clock.monotonic())
    with asleep_for(-59.0), wall_clock_ahead(59.0):
        assert not reading.is_doubtful
        assert 1e9 + 59.0 <= reading.now() < 1e9 + 60.0
    with asleep_for(-60.0), wall_clock_ahead(60.0):
        assert reading.is_doubtful


def test_an_answer_that_took_long_is_doubted_after_a_second() -> None:
    reading = ClockReading(1e9, clock.monotonic() - 4.0)
    assert not reading.is_doubtful
    with asleep_for(-1.0), wall_clock_ahead(1.0):
        assert reading.is_doubtful


def test_the_answer_was_given_halfway_between_question_and_arrival() -> None:
    assert 1e9 + 2.0 <= ClockReading(1e9, clock.monotonic() - 4.0).now() < 1e9 + 3.0


def test_the_present_moment_is_the_same_in_every_time_zone(
    service: str, url: str, open_backend: BackendOpener
) -> None:
    zone = {
        "postgresql": "options=-c%20TimeZone%3DAsia/Kolkata",
        "mariadb": "init_command=SET%20time_zone%3D%27%2B05:30%27",
    }
    backend = open_backend(f"{url}&{zone[service]}")
    assert backend.database.run(10.0, lambda _: abs(backend.database.now() - clock.now())) < 1.0
    with asleep_for(HOUR):  # and so it is asked again
        assert backend.database.run(10.0, lambda _: abs(backend.database.now() - clock.now())) < 1.0
