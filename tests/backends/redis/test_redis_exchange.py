"""An exchange: a result stored, its delivery ended and the next one leased, in one round trip."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import redis

from upshot import App, clock
from upshot.backend import StoredRecord
from upshot.broker import Delivery, QueuedMessage, Settlement
from upshot.engine import Consumer
from upshot.states import State
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


def test_without_a_record_it_settles_and_fetches(broker: RedisBroker) -> None:
    (first,) = published(broker, "a", "b")

    assert exchange(broker, first, None) == (False, True, ["b"])
    assert leased(broker) == 1


def test_what_is_settled_already_is_not_ours(
    broker: RedisBroker, backend: RedisBackend, record: RecordMaker
) -> None:
    (first,) = published(broker, "a", "b")
    broker.settle([Settlement(delivery=first)], SECONDS)

    assert exchange(broker, first, record("r", terminal=True)) == (True, False, ["b"])


def test_a_terminal_record_is_not_replaced(
    broker: RedisBroker, backend: RedisBackend, record: RecordMaker
) -> None:
    (first,) = published(broker, "a")
    ended = record("r", b"the first", terminal=True)
    backend.store([ended], SECONDS)

    assert exchange(broker, first, record("r", b"the second", terminal=True)) == (False, True, [])
    assert backend.load([ended.key], SECONDS) == [ended.body]


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


def test_records_of_another_type_do_not_end_a_delivery_either(
    broker: RedisBroker, raw: Any, record: RecordMaker
) -> None:
    (first,) = published(broker, "a")
    result = record("r", terminal=True)
    raw.hset(result.key, "no", "record")

    assert exchange(broker, first, result) == (True, True, [])


@pytest.fixture
def app(server: RedisServer, namespace: str) -> Any:
    with App(
        broker=server.url, backend=server.url, namespace=namespace, no_worker_warning=None
    ) as opened:
        yield opened


def test_what_comes_along_is_given_back_by_a_worker_that_stops(
    monkeypatch: pytest.MonkeyPatch, app: App
) -> None:
    plain = RedisBroker.exchange

    def stopping(broker: RedisBroker, *args: Any, **options: Any) -> Any:
        answer = plain(broker, *args, **options)
        consumer.stop()  # in the moment after the next message has come
        return answer

    monkeypatch.setattr(RedisBroker, "exchange", stopping)

    @app.task(name="echo")
    def echo(value: int) -> int:
        return value

    handles = [echo.delay(number) for number in range(3)]
    consumer = Consumer(app.host(), queues=["default"])
    consumer.run()

    assert consumer.is_idle
    status = app.broker.call(lambda broker, seconds: broker.survey(["default"], seconds))["default"]
    assert (status.ready, status.leased) == (2, 0)
    assert [each.state for each in handles].count(State.SUCCESS) == 1
    Consumer(app.host(), queues=["default"], burst=True).run()
    assert [each.get(timeout=SECONDS) for each in handles] == [0, 1, 2]
    assert [each.attempts for each in handles] == [1, 1, 1]


def test_a_consumer_takes_no_more_than_it_may_run(app: App) -> None:
    @app.task(name="echo")
    def echo(value: int) -> int:
        return value

    handles = [echo.delay(number) for number in range(3)]
    Consumer(app.host(), queues=["default"], max_tasks=2).run()

    status = app.broker.call(lambda broker, seconds: broker.survey(["default"], seconds))["default"]
    assert (status.ready, status.leased) == (1, 0)
    assert [each.state for each in handles].count(State.SUCCESS) == 2
    app.broker.call(lambda broker, seconds: broker.purge(["default"], seconds))


@pytest.mark.parametrize("happens", ["before", "after"])
def test_an_outcome_outlives_an_exchange_that_fails(
    monkeypatch: pytest.MonkeyPatch, app: App, happens: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether the server has done it and the answer was lost, or has not heard of it."""
    plain, failures = RedisBroker.exchange, [redis.AuthenticationError("refused")]

    def failing(broker: RedisBroker, *args: Any, **options: Any) -> Any:
        if happens == "after" and failures:
            plain(broker, *args, **options)
        if failures:
            raise failures.pop()
        return plain(broker, *args, **options)

    monkeypatch.setattr(RedisBroker, "exchange", failing)

    @app.task(name="echo")
    def echo(value: int) -> int:
        return value

    handle = echo.delay(5)
    consumer = Consumer(app.host(), queues=["default"])
    runs = threading.Thread(target=consumer.run)
    runs.start()
    assert handle.get(timeout=SECONDS) == 5
    consumer.stop()
    runs.join(30)

    assert handle.attempts == 1
    assert "not stored" not in caplog.text
    status = app.broker.call(lambda broker, seconds: broker.survey(["default"], seconds))["default"]
    assert (status.ready, status.leased) == (0, 0)


def test_tasks_of_several_threads_are_settled_one_by_one(
    monkeypatch: pytest.MonkeyPatch, app: App
) -> None:
    """A thread that has ended a task must not take a message that another one would have."""
    exchanges: list[object] = []

    def note(*args: Any, **options: Any) -> None:
        exchanges.append((args, options))

    monkeypatch.setattr(RedisBroker, "exchange", note)

    @app.task(name="echo")
    def echo(value: int) -> int:
        clock.sleep(0.01)
        return value

    with app.running(threads=2):
        assert echo.delay(1).get(timeout=SECONDS) == 1
    assert exchanges == []
