"""Messages on Redis: what only this service has. The broker contract is in test_brokers.py."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import redis

from upshot import clock
from upshot.backend import StoredRecord
from upshot.broker import Action, Delivery, QueuedMessage, Settlement
from upshot.clock import Deadline
from upshot.errors import PayloadTooLargeError
from upshot.url import Url
from upshot_backends.redis.broker import RedisBroker
from upshot_backends.redis.results import RedisBackend
from upshot_conformance.servers import RedisServer

RecordMaker = Callable[..., StoredRecord]


def _message(name: str, body: bytes = b"", *, queue: str = "q", **more: object) -> QueuedMessage:
    priority, eta = more.get("priority", 0), more.get("eta")
    assert isinstance(priority, int)
    assert eta is None or isinstance(eta, float)
    return QueuedMessage(message_id=name, queue=queue, body=body, priority=priority, eta=eta)


def _fetch(broker: RedisBroker, *, limit: int = 1, wait: float = 0.0) -> list[Delivery]:
    return list(broker.fetch(["q"], limit=limit, wait=wait, lease=30.0, worker="w"))


# -- what is left on the server ---------------------------------------------------------------


def test_nothing_is_left_of_queues_that_are_empty_and_unused(
    broker: RedisBroker, raw: Any, namespace: str
) -> None:
    later = clock.now() + 1000.0
    broker.publish(
        [_message("m0"), _message("m1"), _message("m2"), _message("m3", eta=later)], [], 1.0
    )
    taken = _fetch(broker, limit=3)
    broker.settle(
        [
            Settlement(delivery=taken[0]),
            Settlement(delivery=taken[1], action=Action.BURY, reason="unreadable"),
            Settlement(
                delivery=taken[2], action=Action.REPLACE, message=_message("m9", queue="r/é")
            ),
        ],
        1.0,
    )
    assert raw.keys(f"{namespace}*")

    assert broker.purge(["q", "r/é"], 30.0) == 3
    broker.beat("w", [], [], lease=30.0, timeout=30.0)
    assert raw.keys("*" + namespace + "*") == []


def test_looking_at_unknown_queues_leaves_nothing(
    broker: RedisBroker, raw: Any, namespace: str
) -> None:
    broker.survey(["unknown"], 30.0)
    broker.purge(["unknown"], 30.0)

    assert raw.keys(f"{namespace}*") == []


def test_what_a_vanished_worker_and_an_unheard_bell_leave_expires(
    broker: RedisBroker, raw: Any, namespace: str
) -> None:
    broker.publish([_message("m")], [], 30.0)
    broker.beat("w", ["q"], [], lease=20.0, timeout=30.0)

    for ending, seconds in (("q/bell", 60), ("workers", 20), ("serving", 20)):
        assert 0 < raw.ttl(f"{namespace}/{ending}") <= seconds


def test_a_burst_rings_a_bounded_number_of_times(
    broker: RedisBroker, raw: Any, namespace: str
) -> None:
    broker.publish([_message(str(i)) for i in range(1000)], [], 5.0)

    assert raw.llen(f"{namespace}/q/bell") == 64


# -- publishing -------------------------------------------------------------------------------


def test_a_broker_joins_the_backend_of_its_own_url_only(
    server: RedisServer, backend: RedisBackend, broker: RedisBroker
) -> None:
    elsewhere = RedisBackend(Url.parse(server.url.removesuffix("/0") + "/1"))

    assert broker.joins(backend)
    assert not broker.joins(elsewhere)


def test_messages_and_records_arrive_together_and_under_the_guard(
    backend: RedisBackend, broker: RedisBroker, record: RecordMaker
) -> None:
    backend.store([record("a", b"ended", terminal=True, rank=31)], 30.0)
    broker.publish([_message("a"), _message("b")], [record("a", b"q"), record("b", b"q")], 30.0)

    assert [delivery.message_id for delivery in _fetch(broker, limit=9)] == ["a", "b"]
    assert backend.load([record("a").key, record("b").key], 30.0) == [b"ended", b"q"]


def test_publishing_a_terminal_record_wakes_its_waiter(
    backend: RedisBackend, broker: RedisBroker, record: RecordMaker
) -> None:
    listener = backend.listen(30.0)
    listener.subscribe([record("a").key])
    broker.publish([], [record("a", b"end", terminal=True)], 30.0)

    assert [hint.body for hint in listener.wait(2.0)] == [b"end"]
    listener.close()


def test_a_server_out_of_memory_takes_neither_messages_nor_records(
    driver: Callable[[str], Any], fragile: RedisServer, record: RecordMaker
) -> None:
    broker = RedisBroker(Url.parse(fragile.url), "ns")
    with driver(fragile.url) as admin:
        admin.config_set("maxmemory", "1")

        with pytest.raises(redis.OutOfMemoryError):
            broker.publish([_message(str(i)) for i in range(100)], [record("a")], 30.0)
        admin.config_set("maxmemory", "0")
        assert admin.keys("*") == []
    broker.close()


def test_a_batch_too_large_for_one_step_is_refused_whole(
    broker: RedisBroker, raw: Any, namespace: str
) -> None:
    body = bytes(2**26)

    with pytest.raises(PayloadTooLargeError, match="send fewer"):
        broker.publish([_message(str(i), body) for i in range(5)], [], 5.0)
    assert raw.keys(f"{namespace}*") == []


def test_a_forgotten_script_delays_nothing(broker: RedisBroker, raw: Any) -> None:
    for _ in range(2):
        raw.script_flush()
        broker.publish([_message("m")], [], 30.0)
        raw.script_flush()
        (delivery,) = _fetch(broker)
        raw.script_flush()
        assert broker.settle([Settlement(delivery=delivery)], 30.0) == [True]


# -- fetching ---------------------------------------------------------------------------------


def test_the_same_queue_named_twice_is_served_once(broker: RedisBroker) -> None:
    broker.publish([_message("m")], [], 30.0)

    deliveries = broker.fetch(["q", "q"], limit=5, wait=0.0, lease=5.0, worker="w")
    assert [delivery.message_id for delivery in deliveries] == ["m"]


def test_priority_goes_before_the_order_of_the_queues(broker: RedisBroker) -> None:
    broker.publish(
        [
            _message("p-low", queue="p", priority=1),
            _message("q-low", priority=1),
            _message("q-high", priority=2),
            _message("r-high", queue="r", priority=2),
        ],
        [],
        1.0,
    )
    taken = broker.fetch(["p", "q", "r"], limit=9, wait=0.0, lease=5.0, worker="w")

    assert [delivery.message_id for delivery in taken] == ["q-high", "r-high", "p-low", "q-low"]


def test_order_holds_across_delays_priorities_and_lost_leases(broker: RedisBroker) -> None:
    broker.publish([_message("first"), _message("second"), _message("third", priority=9)], [], 30.0)
    lost = broker.fetch(["q"], limit=2, wait=0.0, lease=0.01, worker="w")
    broker.publish([_message("soon", priority=5, eta=clock.now() + 0.01)], [], 30.0)
    deadline = Deadline(30.0)
    while broker.survey(["q"], 30.0)["q"].ready < 4 and not deadline.expired:
        clock.sleep(0.005)
    again = _fetch(broker, limit=9)

    assert [delivery.message_id for delivery in lost] == ["third", "first"]
    assert [(delivery.message_id, delivery.deliveries) for delivery in again] == [
        ("third", 2),
        ("soon", 1),
        ("first", 2),
        ("second", 1),
    ]


def test_a_message_whose_body_was_removed_is_skipped(
    broker: RedisBroker, raw: Any, namespace: str
) -> None:
    broker.publish([_message("gone"), _message("here")], [], 30.0)
    raw.hdel(f"{namespace}/q/messages", "gone")

    assert [delivery.message_id for delivery in _fetch(broker, limit=5)] == ["here"]


def test_eight_fetchers_share_a_thousand_messages_without_repeating_one(
    server: RedisServer, namespace: str
) -> None:
    url = Url.parse(server.url)
    brokers = [RedisBroker(url, namespace) for _ in range(8)]
    brokers[0].publish([_message(str(i)) for i in range(1000)], [], 5.0)
    fetched: list[str] = []

    def drain(broker: RedisBroker) -> None:
        while taken := _fetch(broker, limit=7):
            fetched.extend(delivery.message_id for delivery in taken)
            broker.settle([Settlement(delivery=delivery) for delivery in taken], 5.0)

    threads = [threading.Thread(target=drain, args=(broker,)) for broker in brokers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(fetched, key=int) == [str(i) for i in range(1000)]
    for broker in brokers:
        broker.close()


# -- settling ---------------------------------------------------------------------------------


def test_the_dead_letters_keep_body_and_reason(
    broker: RedisBroker, raw: Any, namespace: str
) -> None:
    broker.publish([_message("m", b"\xff")], [], 30.0)
    (delivery,) = _fetch(broker)
    broker.settle([Settlement(delivery=delivery, action=Action.BURY, reason="why\nnot")], 30.0)

    assert raw.hgetall(f"{namespace}/q/dead") == {b"m": b"\xff"}
    assert raw.hgetall(f"{namespace}/q/reasons") == {b"m": b"why\nnot"}


def test_many_large_replacements_are_settled_in_parts(broker: RedisBroker) -> None:
    broker.publish([_message(str(i)) for i in range(12)], [], 30.0)
    settlements = [
        Settlement(
            delivery=delivery,
            action=Action.REPLACE,
            message=_message(delivery.message_id, bytes(2**20), queue=f"q{number % 3}"),
        )
        for number, delivery in enumerate(_fetch(broker, limit=12))
    ]

    assert broker.settle(settlements, 5.0) == [True] * 12
    assert broker.settle(settlements, 5.0) == [False] * 12
    counted = broker.survey(["q", "q0", "q1", "q2"], 30.0)
    assert [counted[queue].ready for queue in ("q", "q0", "q1", "q2")] == [0, 4, 4, 4]


def test_purging_many_messages_spares_the_leased(broker: RedisBroker) -> None:
    later = clock.now() + 1000.0
    broker.publish([_message(str(i)) for i in range(2505)], [], 5.0)
    broker.publish([_message(f"later-{i}", eta=later) for i in range(1500)], [], 5.0)
    leased = _fetch(broker, limit=5)

    assert broker.purge(["q"], 5.0) == 4000
    assert broker.settle([Settlement(delivery=delivery) for delivery in leased], 30.0) == [True] * 5
