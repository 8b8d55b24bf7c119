"""What an exchange is on a Redis server: one round trip, and nothing ended that is not stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis

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
