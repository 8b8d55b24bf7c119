"""What an exchange is on a Redis server: one round trip, and nothing ended that is not stored."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import redis

from upshot import clock
from upshot.backend import StoredRecord
from upshot.broker import Delivery, QueuedMessage, Settlement
from upshot.url import Url
from upshot_backends.redis.broker import RedisBroker
from upshot_backends.redis.results import RedisBackend
from upshot_backends.redis.server import Server
from upshot_conformance.servers import RedisServer

RecordMaker = Callable[..., StoredRecord]
SECONDS = 10.0


def published(broker: RedisBroker, *names: str) -> list[Delivery]:
    """Publish messages, and return the first of them, leased."""
    messages = [QueuedMessage(message_id=name, queue="q", body=name.encode()) for name in names]
    broker.publish(messages, (), SECONDS)
    return list(broker.fetch(["q"], limit=1, wait=0.0, lease=60.0, worker="w"))


def exchange(
    broker: RedisBroker, delivery: Delivery, record: StoredRecord | None
) -> tuple[bool, bool, list[str]]:
    applied, ours, found = broker.exchange(
        Settlement(delivery=delivery), record, ["q"], lease=60.0, worker="w", timeout=SECONDS
    )
    return applied, ours, [each.message_id for each in found]


def leased(broker: RedisBroker) -> int | None:
    return broker.survey(["q"], SECONDS)["q"].leased


def test_it_takes_one_round_trip(
    monkeypatch: pytest.MonkeyPatch,
    broker: RedisBroker,
    backend: RedisBackend,
    record: RecordMaker,
) -> None:
    (first,) = published(broker, "a")
    exchange(broker, first, None)  # the server knows the scripts by now
    (second,) = published(broker, "b", "c")
    result = record("r", terminal=True)
    trips: list[int] = []
    plain = Server.exchange

    def counted(server: Server, commands: Any, until: float) -> Any:
        trips.append(len(commands))
        return plain(server, commands, until)

    monkeypatch.setattr(Server, "exchange", counted)

    assert exchange(broker, second, result) == (True, True, ["c"])
    assert trips == [2]
    assert backend.load([result.key], SECONDS) == [result.body]


def test_a_result_that_cannot_be_stored_keeps_its_message(
    fragile: RedisServer,
    namespace: str,
    record: RecordMaker,
    driver: Callable[[str], Any],
) -> None:
    broker = RedisBroker(Url.parse(fragile.url), namespace)
    raw = driver(fragile.url)
    try:
        (first,) = published(broker, "a")
        raw.config_set("maxmemory", "1")
        with pytest.raises(redis.RedisError):
            exchange(broker, first, record("r", terminal=True))
        raw.config_set("maxmemory", "0")

        assert leased(broker) == 1
        assert broker.settle([Settlement(delivery=first)], SECONDS) == [True]
    finally:
        raw.close()
        broker.close()


def test_what_comes_along_is_given_back_if_the_delivery_cannot_be_ended(
    broker: RedisBroker, raw: Any, namespace: str, record: RecordMaker
) -> None:
    """As when memory is full: for a result there is no room, a moment later there is some."""
    message = QueuedMessage(message_id="other", queue="r", body=b"")
    broker.publish([message], (), SECONDS)
    (first,) = broker.fetch(["r"], limit=1, wait=0.0, lease=60.0, worker="w")
    raw.rename(f"{namespace}/r/meta", f"{namespace}/aside")
    raw.set(f"{namespace}/r/meta", "not what it was")
    (second,) = published(broker, "a", "b")

    for _ in range(3):
        with pytest.raises(redis.ResponseError):
            exchange(broker, first, record("r", terminal=True))

    assert leased(broker) == 1
    raw.rename(f"{namespace}/aside", f"{namespace}/r/meta")
    assert exchange(broker, second, None) == (False, True, ["b"])
    assert broker.settle([Settlement(delivery=first)], SECONDS) == [True]


def test_records_of_another_type_do_not_end_a_delivery_either(
    broker: RedisBroker, raw: Any, record: RecordMaker
) -> None:
    (first,) = published(broker, "a")
    result = record("r", terminal=True)
    raw.hset(result.key, "no", "record")

    assert exchange(broker, first, result) == (True, True, [])


def idle(broker: RedisBroker) -> None:
    """Let an exchange find nothing, as that of a worker whose queue has become empty does."""
    (delivery,) = published(broker, "before")
    assert exchange(broker, delivery, None) == (False, True, [])


def awaited(broker: RedisBroker, wait: float = 30.0) -> list[str]:
    found = broker.fetch(["q"], limit=1, wait=wait, lease=60.0, worker="w")
    return [each.message_id for each in found]


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many commands each round trip has had that was not one of waiting."""
    trips: list[int] = []
    plain = Server.exchange

    def counted(server: Server, commands: Any, until: float) -> Any:
        trips.append(len(commands))
        return plain(server, commands, until)

    monkeypatch.setattr(Server, "exchange", counted)
    return trips


@pytest.mark.parametrize("delay", [0.0, 0.1], ids=["there already", "yet to come"])
def test_after_an_exchange_a_message_comes_with_the_ring(
    server: RedisServer, namespace: str, broker: RedisBroker, looks: list[int], delay: float
) -> None:
    publisher = RedisBroker(Url.parse(server.url), namespace)
    idle(broker)
    message = QueuedMessage(message_id="m", queue="q", body=b"")
    timer = threading.Timer(delay, publisher.publish, [[message], (), SECONDS])
    timer.start()
    if not delay:
        timer.join()
    looks.clear()

    assert awaited(broker) == ["m"]
    timer.join()
    assert len(looks) == bool(delay)  # the publisher's own
    assert leased(broker) == 1
    publisher.close()


def test_after_an_exchange_a_wait_in_vain_leaves_nothing_behind(
    server: RedisServer, namespace: str, broker: RedisBroker
) -> None:
    idle(broker)

    assert awaited(broker, wait=0.6) == []
    published_by_another = RedisBroker(Url.parse(server.url), namespace)
    assert published(published_by_another, "m")  # and nobody else has got it
    published_by_another.close()


def test_after_an_exchange_what_is_due_soon_is_fetched_in_time(broker: RedisBroker) -> None:
    (delivery,) = published(broker, "before")
    due = clock.now() + 0.7
    broker.publish([QueuedMessage(message_id="m", queue="q", body=b"", eta=due)], (), SECONDS)
    exchange(broker, delivery, None)

    assert awaited(broker) == ["m"]
    assert clock.now() >= due


def test_after_an_exchange_a_fetch_that_does_not_wait_looks(broker: RedisBroker) -> None:
    idle(broker)
    broker.publish([QueuedMessage(message_id="m", queue="q", body=b"")], (), SECONDS)

    assert awaited(broker, wait=0.0) == ["m"]


def test_a_server_that_has_forgotten_its_scripts_is_told_them_again(
    broker: RedisBroker, raw: Any
) -> None:
    idle(broker)
    raw.script_flush()
    broker.publish([QueuedMessage(message_id="m", queue="q", body=b"")], (), SECONDS)

    assert awaited(broker) == ["m"]


def test_after_an_exchange_a_lost_connection_ends_the_wait(fragile: RedisServer) -> None:
    broker = RedisBroker(Url.parse(fragile.url), "ns")
    idle(broker)
    killer = threading.Timer(0.2, fragile.stop)
    killer.start()

    with pytest.raises(redis.ConnectionError):
        awaited(broker)
    killer.join()
    broker.close()
