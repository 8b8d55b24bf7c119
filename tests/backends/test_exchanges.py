"""What every broker does that ends a delivery and leases the next message in one round trip."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from upshot import App, clock
from upshot.backend import Backend, StoredRecord
from upshot.broker import Action, Broker, Delivery, Exchanging, QueuedMessage, Settlement
from upshot.engine import Consumer
from upshot.errors import ServiceRejectedError, UpshotError
from upshot.registry import backend_class, broker_class
from upshot.states import NEVER, State
from upshot.url import Url
from upshot_backends.redis.broker import RedisBroker
from upshot_conformance.servers import Server

SECONDS = 10.0


@pytest.fixture(params=["sqlite", "redis", "postgresql", "mariadb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a service of each kind that keeps both messages and results."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/tasks.db"
    server: Server = request.getfixturevalue(f"{request.param}_server")
    return server.url


@pytest.fixture
def namespace() -> str:
    return f"test-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def open_broker(url: str, namespace: str) -> Iterator[Callable[[], Broker]]:
    opened: list[Broker] = []

    def open_one() -> Broker:
        parsed = Url.parse(url)
        opened.append(broker_class(parsed)(parsed, namespace))
        return opened[-1]

    yield open_one
    for broker in opened:
        broker.close()


@pytest.fixture
def broker(open_broker: Callable[[], Broker]) -> Broker:
    return open_broker()


@pytest.fixture
def backend(url: str) -> Iterator[Backend]:
    parsed = Url.parse(url)
    opened = backend_class(parsed)(parsed)
    yield opened
    opened.close()


@pytest.fixture
def result(namespace: str) -> Callable[..., StoredRecord]:
    """Makes the record of a task that has ended."""

    def make(body: bytes = b"body", *, key: str = "r") -> StoredRecord:
        return StoredRecord(
            key=f"{namespace}:{key}",
            body=body,
            rank=20,
            barrier=NEVER,
            expires=60.0,
            task_id="r",
            state="SUCCESS",
            name="",
            reply_to="",
        )

    return make


ResultMaker = Callable[..., StoredRecord]


def publish(broker: Broker, *names: str, queue: str = "q", priority: int = 0) -> None:
    broker.publish(
        [
            QueuedMessage(message_id=name, queue=queue, body=name.encode(), priority=priority)
            for name in names
        ],
        (),
        SECONDS,
    )


def fetch(broker: Broker, lease: float = 60.0) -> Delivery:
    (found,) = broker.fetch(["q"], limit=1, wait=5.0, lease=lease, worker="w")
    return found


def exchange(
    broker: Broker, ended: Delivery | Settlement, record: StoredRecord | None, *queues: str
) -> tuple[bool, bool, list[str]]:
    assert isinstance(broker, Exchanging)
    applied, ours, found = broker.exchange(
        ended if isinstance(ended, Settlement) else Settlement(delivery=ended),
        record,
        queues or ("q",),
        lease=60.0,
        worker="w",
        timeout=SECONDS,
    )
    return applied, ours, [each.message_id for each in found]


def counts(broker: Broker, queue: str = "q") -> tuple[int, int | None, int]:
    """Return how many messages are ready, leased and dead."""
    status = broker.survey([queue], SECONDS)[queue]
    return status.ready, status.leased, status.dead


def test_it_stores_and_settles_and_leases_the_next(
    broker: Broker, backend: Backend, result: ResultMaker
) -> None:
    assert broker.joins(backend)
    publish(broker, "a", "b", "c")
    first = fetch(broker)
    ended = result(bytes(range(256)))

    assert exchange(broker, first, ended) == (True, True, ["b"])
    assert list(backend.load([ended.key], SECONDS)) == [ended.body]
    assert counts(broker) == (1, 1, 0)


def test_what_it_leases_is_as_it_was_published(broker: Broker) -> None:
    publish(broker, "a")
    body = bytes(range(256))
    broker.publish([QueuedMessage(message_id="b", queue="r", body=body)], (), SECONDS)
    assert isinstance(broker, Exchanging)

    _, _, (found,) = broker.exchange(
        Settlement(delivery=fetch(broker)),
        None,
        ["q", "r"],
        lease=60.0,
        worker="w",
        timeout=SECONDS,
    )

    assert (found.message_id, found.queue, found.body, found.deliveries) == ("b", "r", body, 1)
    assert list(broker.settle([Settlement(delivery=found)], SECONDS)) == [True]


def test_without_a_record_it_settles_and_leases(broker: Broker) -> None:
    publish(broker, "a", "b")

    assert exchange(broker, fetch(broker), None) == (False, True, ["b"])
    assert counts(broker) == (0, 1, 0)


def test_where_nothing_is_due_it_brings_nothing(broker: Broker, result: ResultMaker) -> None:
    publish(broker, "a")
    late = QueuedMessage(message_id="late", queue="q", body=b"", eta=clock.now() + 60.0)
    broker.publish([late], (), SECONDS)

    assert exchange(broker, fetch(broker), result()) == (True, True, [])
    assert counts(broker) == (0, 0, 0)


def test_what_is_settled_already_is_not_ours(broker: Broker, result: ResultMaker) -> None:
    publish(broker, "a", "b", "c")
    first = fetch(broker)

    assert exchange(broker, first, result()) == (True, True, ["b"])
    assert exchange(broker, first, result()) == (False, False, ["c"])
    assert counts(broker) == (0, 2, 0)


def test_a_terminal_record_is_not_replaced(
    broker: Broker, backend: Backend, result: ResultMaker
) -> None:
    publish(broker, "a")
    first = fetch(broker)
    ended = result(b"the first")
    backend.store([ended], SECONDS)

    assert exchange(broker, first, result(b"the second")) == (False, True, [])
    assert list(backend.load([ended.key], SECONDS)) == [ended.body]


def test_queues_are_served_by_priority_and_in_their_order(broker: Broker) -> None:
    publish(broker, "a")
    first = fetch(broker)
    publish(broker, "low", priority=1)
    publish(broker, "high", queue="r", priority=8)
    publish(broker, "other", queue="s", priority=1)

    assert exchange(broker, first, None, "s", "q", "r", "q") == (False, True, ["high"])
    again = fetch(broker)
    assert again.message_id == "low"
    assert exchange(broker, again, None, "s", "q", "r") == (False, True, ["other"])


def test_what_it_ends_it_does_not_lease_though_the_lease_ran_out(
    broker: Broker, result: ResultMaker
) -> None:
    publish(broker, "a")
    lost = fetch(broker, lease=0.05)
    deadline = clock.Deadline(SECONDS)
    while counts(broker)[0] == 0 and not deadline.expired:
        clock.sleep(0.02)

    assert exchange(broker, lost, result()) == (True, True, [])
    assert counts(broker) == (0, 0, 0)


def test_it_may_replace_a_message_and_lease_what_takes_its_place(broker: Broker) -> None:
    publish(broker, "a")
    new = QueuedMessage(message_id="new", queue="q", body=b"")
    again = Settlement(delivery=fetch(broker), action=Action.REPLACE, message=new)

    assert exchange(broker, again, None) == (False, True, ["new"])
    assert counts(broker) == (0, 1, 0)


def test_it_may_bury_a_message(broker: Broker, result: ResultMaker) -> None:
    publish(broker, "a", "b")
    ended = Settlement(delivery=fetch(broker), action=Action.BURY, reason="it cannot be run")

    assert exchange(broker, ended, result()) == (True, True, ["b"])
    assert counts(broker) == (0, 1, 1)


@pytest.mark.parametrize(
    "flaw",
    [{"body": None}, {"barrier": 2**70}],
    ids=["no body", "a barrier that is too large"],
)
def test_a_record_that_cannot_be_stored_leaves_the_delivery_leased(
    broker: Broker, backend: Backend, result: ResultMaker, flaw: dict[str, Any]
) -> None:
    if "barrier" in flaw and isinstance(broker, RedisBroker):
        pytest.skip("the service knows no largest number")
    publish(broker, "a", "b")
    first, broken = fetch(broker), result()._replace(**flaw)

    with pytest.raises((UpshotError, TypeError, OverflowError, redis.RedisError)):
        exchange(broker, first, broken)

    assert counts(broker) == (1, 1, 0)
    assert list(backend.load([broken.key], SECONDS)) == [None]
    assert exchange(broker, first, result()) == (True, True, ["b"])


def test_a_worker_that_exchanges_is_shown(broker: Broker) -> None:
    publish(broker, "a")
    first = fetch(broker)
    broker.beat("w", [], [], lease=60.0, timeout=SECONDS)

    exchange(broker, first, None)
    assert broker.survey(["q"], SECONDS)["q"].workers == ("w",)


def test_who_waits_for_the_result_hears_of_it(
    url: str, broker: Broker, backend: Backend, result: ResultMaker
) -> None:
    publish(broker, "a")
    first, ended = fetch(broker), result()
    listener = backend.listen(SECONDS)
    if listener is None:
        pytest.skip("the service tells nobody")
    try:
        listener.subscribe([ended.key])
        while listener.wait(0.1):  # what was there before
            pass
        exchange(broker, first, ended)
        heard = [hint.key for hint in listener.wait(SECONDS)]
    finally:
        listener.close()

    assert heard in ([ended.key], [None])


def test_six_threads_that_exchange_get_each_of_300_messages_once(
    open_broker: Callable[[], Broker], backend: Backend, result: ResultMaker
) -> None:
    names = [f"{number}" for number in range(300)]
    publish(open_broker(), *names)
    got: list[str] = []

    def work(broker: Broker) -> None:
        assert isinstance(broker, Exchanging)
        held = list(broker.fetch(["q"], limit=1, wait=5.0, lease=60.0, worker="w"))
        while held:
            (ended,) = held
            record = result(key=ended.message_id)
            applied, ours, found = broker.exchange(
                Settlement(delivery=ended), record, ["q"], lease=60.0, worker="w", timeout=30.0
            )
            got.extend([ended.message_id] if applied and ours else ["not once"])
            held = list(found)

    threads = [threading.Thread(target=work, args=(open_broker(),)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)

    assert sorted(got, key=int) == names
    keys = [result(key=name).key for name in names]
    assert list(backend.load(keys, SECONDS)) == [b"body"] * len(names)


# -- in a worker -----------------------------------------------------------------------------------


@pytest.fixture
def kind(url: str) -> Any:
    """The broker's class, whose `exchange` a test may put something before."""
    return broker_class(Url.parse(url))


@pytest.fixture
def app(url: str, namespace: str) -> Iterator[App]:
    with App(broker=url, backend=url, namespace=namespace, no_worker_warning=None) as opened:
        yield opened


def status(app: App) -> tuple[int, int | None]:
    found = app.broker.call(lambda broker, seconds: broker.survey(["default"], seconds))["default"]
    return found.ready, found.leased


def test_what_comes_along_is_given_back_by_a_worker_that_stops(
    monkeypatch: pytest.MonkeyPatch, kind: Any, app: App
) -> None:
    plain = kind.exchange

    def stopping(broker: Broker, *args: Any, **options: Any) -> Any:
        answer = plain(broker, *args, **options)
        consumer.stop()  # in the moment after the next message has come
        return answer

    monkeypatch.setattr(kind, "exchange", stopping)

    @app.task(name="echo")
    def echo(value: int) -> int:
        return value

    handles = [echo.delay(number) for number in range(3)]
    consumer = Consumer(app.host(), queues=["default"])
    consumer.run()

    assert consumer.is_idle
    assert status(app) == (2, 0)
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

    assert status(app) == (1, 0)
    assert [each.state for each in handles].count(State.SUCCESS) == 2
    app.broker.call(lambda broker, seconds: broker.purge(["default"], seconds))


@pytest.mark.parametrize("failure", [ServiceRejectedError, MemoryError])
@pytest.mark.parametrize("happens", ["before", "after"])
def test_an_outcome_outlives_an_exchange_that_fails(
    monkeypatch: pytest.MonkeyPatch,
    kind: Any,
    app: App,
    happens: str,
    failure: type[Exception],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whether the server has done it and the answer was lost, or has not heard of it."""
    plain, failures = kind.exchange, [failure("this was to be expected")]

    def failing(broker: Broker, *args: Any, **options: Any) -> Any:
        if happens == "after" and failures:
            plain(broker, *args, **options)
        if failures:
            raise failures.pop()
        return plain(broker, *args, **options)

    monkeypatch.setattr(kind, "exchange", failing)

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
    assert status(app) == (0, 0)


def test_a_message_is_settled_though_there_is_no_memory_for_the_next(
    monkeypatch: pytest.MonkeyPatch, kind: Any, app: App
) -> None:
    def exchange(*args: Any, **options: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(kind, "exchange", exchange)

    @app.task(name="note", ignore_result=True)
    def note(value: int) -> None:
        noted.append(value)

    noted: list[int] = []
    for number in range(3):
        note.delay(number)
    Consumer(app.host(), queues=["default"], burst=True).run()

    assert noted == [0, 1, 2]
    assert status(app) == (0, 0)


def test_tasks_of_several_threads_are_settled_one_by_one(
    monkeypatch: pytest.MonkeyPatch, kind: Any, app: App
) -> None:
    """A thread that has ended a task must not take a message that another one would have."""
    exchanges: list[object] = []

    def note(*args: Any, **options: Any) -> None:
        exchanges.append((args, options))

    monkeypatch.setattr(kind, "exchange", note)

    @app.task(name="echo")
    def echo(value: int) -> int:
        clock.sleep(0.01)
        return value

    with app.running(threads=2):
        assert echo.delay(1).get(timeout=SECONDS) == 1
    assert exchanges == []
