"""How a RabbitMQ broker ends a delivery and leases the next message in one round trip.

The others' exchanges store a record too, see `test_exchanges.py`; here it has its own way.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from upshot.broker import Action, Delivery, Exchanging, QueuedMessage, Settlement
from upshot.url import Url
from upshot_backends.amqp.broker import AmqpBroker
from upshot_backends.amqp.connection import AmqpConnection, Session
from upshot_conformance.proxies import readdressed
from upshot_conformance.proxy import Proxy
from upshot_conformance.servers import RabbitMQServer

BrokerOpener = Callable[..., AmqpBroker]

SECONDS = 30.0
LONG = 60.0  # seconds of a lease that outlives the test
SHORT = 0.2  # seconds of a lease that the test lets run out


@pytest.fixture
def broker(open_broker: BrokerOpener) -> AmqpBroker:
    return open_broker()


def publish(broker: AmqpBroker, *names: str, queue: str = "q") -> None:
    batch = [QueuedMessage(message_id=each, queue=queue, body=each.encode()) for each in names]
    broker.publish(batch, (), SECONDS)


def fetch(
    broker: AmqpBroker, *queues: str, wait: float = SECONDS, lease: float = LONG
) -> list[Delivery]:
    return list(broker.fetch(queues or ("q",), limit=1, wait=wait, lease=lease, worker="w"))


def exchange(
    broker: AmqpBroker,
    ended: Delivery,
    *queues: str,
    action: Action = Action.ACK,
    lease: float = LONG,
) -> tuple[bool, list[Delivery]]:
    assert isinstance(broker, Exchanging)
    settlement = Settlement(delivery=ended, action=action)
    applied, ours, found = broker.exchange(
        settlement, None, queues or ("q",), lease=lease, worker="w", timeout=SECONDS
    )
    assert not applied
    return ours, list(found)


def ready(broker: AmqpBroker, queue: str = "q") -> int:
    return broker.survey([queue], SECONDS)[queue].ready


def test_it_settles_and_leases_the_next(broker: AmqpBroker, open_broker: BrokerOpener) -> None:
    publish(broker, "a", "b", "c")
    (first,) = fetch(broker)
    ours, (second,) = exchange(broker, first)

    assert ours
    assert (second.message_id, second.body, second.deliveries) == ("b", b"b", 1)
    assert exchange(broker, first) == (False, [])
    assert broker.settle([Settlement(delivery=second)], SECONDS) == [True]
    broker.close()
    left = open_broker()
    assert [each.message_id for each in fetch(left)] == ["c"]
    assert fetch(left, wait=0.0) == []


def test_it_takes_two_round_trips_at_most_for_a_message(
    server: RabbitMQServer, open_broker: BrokerOpener
) -> None:
    url = Url.parse(server.url)
    host, port = url.hosts[0]
    assert port is not None
    with Proxy(host, port) as proxy:
        broker, names = open_broker(readdressed(server.url, [proxy.address])), "abcdefgh"
        publish(broker, *names)
        found = fetch(broker)
        before = proxy.turns
        while found:
            _, found = exchange(broker, found[0])
        assert proxy.turns - before == len(names)
        broker.close()


@pytest.mark.parametrize("action", [Action.RELEASE, Action.BURY])
def test_what_is_not_done_is_settled_and_nothing_is_leased(
    broker: AmqpBroker, action: Action
) -> None:
    publish(broker, "a", "b")
    (first,) = fetch(broker)

    assert exchange(broker, first, action=action) == (True, [])
    assert ready(broker) == (2 if action is Action.RELEASE else 1)


def test_every_queue_is_looked_into(broker: AmqpBroker) -> None:
    publish(broker, "a", queue="q1")
    (found,) = fetch(broker, "q1", "q2", "q3")
    publish(broker, "b", queue="q3")
    ours, (second,) = exchange(broker, found, "q1", "q2", "q3")

    assert ours
    assert (second.message_id, second.queue) == ("b", "q3")
    assert exchange(broker, second, "q1", "q2", "q3") == (True, [])


def test_a_lease_that_has_run_out_is_not_ours(
    broker: AmqpBroker, open_broker: BrokerOpener
) -> None:
    publish(broker, "a")
    (found,) = fetch(broker, lease=SHORT)
    (again,) = fetch(open_broker())

    assert again.deliveries == 2
    assert exchange(broker, found) == (False, [])


def test_a_message_that_comes_when_the_last_look_found_nothing_is_brought_at_once(
    broker: AmqpBroker, open_broker: BrokerOpener
) -> None:
    other = open_broker()
    publish(other, "a0")
    (found,) = fetch(broker)
    for number in range(1, 10):
        assert exchange(broker, found) == (True, [])
        assert fetch(broker, wait=0.0) == []
        publish(other, f"a{number}")
        began = time.monotonic()
        (found,) = fetch(broker)
        assert (found.message_id, found.deliveries) == (f"a{number}", 1)
        assert time.monotonic() - began < SECONDS / 2


def test_one_that_waits_takes_no_more_than_it_wants(
    broker: AmqpBroker, open_broker: BrokerOpener
) -> None:
    other = open_broker()
    publish(other, "a")
    (found,) = fetch(broker)
    assert exchange(broker, found) == (True, [])
    publish(other, "b", "c")
    (second,) = fetch(broker)
    (third,) = fetch(other)

    assert (second.message_id, third.message_id) == ("b", "c")
    assert (second.deliveries, third.deliveries) == (1, 1)
    assert broker.settle([Settlement(delivery=second)], SECONDS) == [True]


# -- the consumer that stays -----------------------------------------------------------------------


def pushed(broker: AmqpBroker, other: AmqpBroker) -> Delivery:
    """Return a delivery that a consumer has brought, which stays."""
    assert fetch(broker, wait=0.0) == []
    taken: list[Delivery] = []
    thread = threading.Thread(target=lambda: taken.extend(fetch(broker)))
    thread.start()
    time.sleep(0.2)
    publish(other, "pushed")
    thread.join()
    (found,) = taken
    return found


def test_it_brings_one_message_after_the_other(
    broker: AmqpBroker, open_broker: BrokerOpener
) -> None:
    other = open_broker()
    found = pushed(broker, other)
    publish(other, "a", "b", "c")
    came: list[tuple[str, int]] = []
    for _ in range(3):
        assert exchange(broker, found) == (True, [])
        (found,) = fetch(broker)
        came.append((found.message_id, found.deliveries))

    assert came == [("a", 1), ("b", 1), ("c", 1)]
    assert exchange(broker, found) == (True, [])
    assert fetch(broker, wait=0.1) == []


def test_what_it_brings_to_nobody_is_given_back_uncounted(
    broker: AmqpBroker, open_broker: BrokerOpener
) -> None:
    other = open_broker()
    found = pushed(broker, other)
    publish(other, "a", "b")
    assert exchange(broker, found) == (True, [])
    time.sleep(0.2)
    broker.beat("w", [], [], lease=LONG, timeout=SECONDS)  # signs off
    broker.close()

    came = [fetch(other)[0] for _ in range(2)]
    assert [(each.message_id, each.deliveries) for each in came] == [("a", 1), ("b", 1)]


def test_whoever_asks_otherwise_next_ends_it(broker: AmqpBroker, open_broker: BrokerOpener) -> None:
    other = open_broker()
    assert exchange(broker, pushed(broker, other)) == (True, [])
    publish(other, "a", "b")

    assert [each.message_id for each in fetch(broker, wait=0.0)] == ["a"]
    assert [each.message_id for each in fetch(other)] == ["b"]


def test_what_it_brings_to_a_thread_that_is_held_up_is_given_back_after_a_lease(
    broker: AmqpBroker, open_broker: BrokerOpener
) -> None:
    other = open_broker()
    found = pushed(broker, other)
    publish(other, "a")
    assert exchange(broker, found, lease=SHORT) == (True, [])

    assert [(each.message_id, each.deliveries) for each in fetch(other)] == [("a", 1)]
    publish(other, "b")
    assert [(each.message_id, each.deliveries) for each in fetch(broker)] == [("b", 1)]


def test_two_that_stay_keep_nothing_from_others(
    broker: AmqpBroker, open_broker: BrokerOpener
) -> None:
    other = open_broker()
    found = [pushed(broker, other) for _ in range(2)]
    publish(other, "a", "b")
    for each in found:
        assert exchange(broker, each) == (True, [])

    came = [fetch(broker)[0], fetch(other)[0]]
    assert sorted((each.message_id, each.deliveries) for each in came) == [("a", 1), ("b", 1)]


def test_what_it_has_brought_is_not_there_twice_when_the_connection_is_lost(
    server: RabbitMQServer, open_broker: BrokerOpener
) -> None:
    url = Url.parse(server.url)
    host, port = url.hosts[0]
    assert port is not None
    other = open_broker()
    with Proxy(host, port) as proxy:
        broker = open_broker(readdressed(server.url, [proxy.address]))
        found = pushed(broker, other)
        publish(other, "a")
        assert exchange(broker, found) == (True, [])
        time.sleep(0.2)
        proxy.cut()
        time.sleep(0.2)
        proxy.heal()
        (again,) = fetch(broker)
        assert again.message_id == "a"
        assert broker.settle([Settlement(delivery=again)], SECONDS) == [True]
        broker.close()

    assert fetch(other, wait=0.0) == []


def test_what_it_brought_can_be_replaced_although_its_queue_was_deleted(
    broker: AmqpBroker,
    open_broker: BrokerOpener,
    connection: AmqpConnection,
    namespace: str,
) -> None:
    found = pushed(broker, open_broker())

    async def delete(session: Session) -> None:
        await (await session.channel()).delete(f"{namespace}/q")

    connection.call(delete, SECONDS)
    time.sleep(0.2)
    again = QueuedMessage(message_id="again", queue="q", body=b"again")
    settlement = Settlement(delivery=found, action=Action.REPLACE, message=again)

    assert broker.settle([settlement], SECONDS) == [True]
    assert [each.message_id for each in fetch(broker)] == ["again"]


@pytest.mark.parametrize("by", ["settling", "its lease"])
def test_it_brings_nothing_when_a_message_goes_without_exchange(
    broker: AmqpBroker, open_broker: BrokerOpener, by: str
) -> None:
    other = open_broker()
    found = pushed(broker, other)
    publish(other, "a")
    if by == "settling":
        assert broker.settle([Settlement(delivery=found)], SECONDS) == [True]
    else:
        broker.beat("w", ["q"], [found], lease=SHORT, timeout=SECONDS)
        time.sleep(2 * SHORT)
    came = [fetch(other)[0] for _ in range(1 if by == "settling" else 2)]

    ours = [("a", 1)] if by == "settling" else [("a", 1), ("pushed", 2)]
    assert sorted((each.message_id, each.deliveries) for each in came) == ours


def test_what_comes_while_it_ends_is_not_counted(
    server: RabbitMQServer, open_broker: BrokerOpener
) -> None:
    url = Url.parse(server.url)
    host, port = url.hosts[0]
    assert port is not None
    other = open_broker()
    with Proxy(host, port) as proxy:
        broker = open_broker(readdressed(server.url, [proxy.address]))
        publish(other, "first")
        assert exchange(broker, fetch(broker)[0]) == (True, [])
        late = threading.Timer(0.8, publish, (other, "late"))
        late.start()
        proxy.delay(0.4)
        found = fetch(broker, wait=1.0) or fetch(broker)
        late.join()
        proxy.heal()

        assert [(each.message_id, each.deliveries) for each in found] == [("late", 1)]
        broker.close()
