"""What is RabbitMQ's own about the RabbitMQ broker: counts, delays, names, what lies on the server.

What every broker does is tested in `test_brokers.py`, faults in `test_amqp_broker_faults.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from upshot import clock
from upshot.broker import Action, Delivery, QueuedMessage, Settlement
from upshot.errors import UrlError
from upshot.url import Url
from upshot_backends.amqp.broker import AmqpBroker
from upshot_backends.amqp.channel import Received
from upshot_backends.amqp.connection import AmqpConnection, Session
from upshot_backends.amqp.driver import RefusedForNowError
from upshot_backends.amqp.publisher import Parcel
from upshot_backends.amqp.queues import DELAYS, Names

BrokerOpener = Callable[..., AmqpBroker]
Eventually = Callable[[Callable[[], bool]], None]

LONG = 60.0  # seconds of a lease that outlives the test
SHORT = 0.2  # seconds of a lease that the test lets run out


def message(message_id: str, *, queue: str = "q", **more: object) -> QueuedMessage:
    body = f"body of {message_id}".encode()
    return QueuedMessage(message_id=message_id, queue=queue, body=body, **more)  # type: ignore[arg-type]  # the tests'


def fetch(
    broker: AmqpBroker, *queues: str, limit: int = 100, wait: float = 0.0, lease: float = LONG
) -> list[Delivery]:
    found = broker.fetch(queues or ("q",), limit=limit, wait=wait, lease=lease, worker="w")
    return list(found)


def settle(
    broker: AmqpBroker, delivery: Delivery, action: Action = Action.ACK, reason: str = ""
) -> bool:
    return broker.settle([Settlement(delivery=delivery, action=action, reason=reason)], 10.0)[0]


def depth(connection: AmqpConnection, name: str) -> int:
    """Return how many messages are ready in a queue of the server, -1 if it is not there."""

    async def look(session: Session) -> int:
        channel = await session.channel()
        try:
            return await channel.declare(name, passive=True)
        finally:
            channel.close()

    try:
        return connection.call(look, 10.0)
    except RefusedForNowError as exc:
        if exc.code != 404:
            raise
        return -1


# -- counts ----------------------------------------------------------------------------------------


def test_every_delivery_counts_once(open_broker: BrokerOpener) -> None:
    first, second = open_broker(), open_broker()
    first.publish([message("a", priority=4)], (), 10.0)
    counts: list[int] = []
    for broker in (first, second, first, second):
        (delivery,) = fetch(broker, wait=10.0, lease=SHORT)
        counts.append(delivery.deliveries)

    assert counts == [1, 2, 3, 4]


def test_giving_back_keeps_the_count_and_the_place(open_broker: BrokerOpener) -> None:
    broker = open_broker()
    broker.publish([message("a")], (), 10.0)
    fetch(broker, lease=SHORT)
    (again,) = fetch(broker, wait=10.0)
    broker.publish([message("b"), message("c", priority=1)], (), 10.0)

    assert again.deliveries == 2
    assert settle(broker, again, Action.RELEASE)
    found = [(each.message_id, each.deliveries) for each in fetch(broker)]
    assert found == [("c", 1), ("a", 2), ("b", 1)]


def test_what_comes_at_once_to_several_queues_and_is_not_wanted_is_given_back_uncounted(
    open_broker: BrokerOpener,
) -> None:
    waiting, publishing = open_broker(), open_broker()
    queues = [f"q{number}" for number in range(8)]
    taken: list[Delivery] = []

    def take() -> None:
        while len(taken) < 80 and (found := fetch(waiting, *queues, limit=1, wait=10.0)):
            taken.extend(found)
            assert settle(waiting, found[0])

    thread = threading.Thread(target=take)
    thread.start()
    for round_number in range(10):
        batch = [message(f"{queue} {round_number}", queue=queue) for queue in queues]
        publishing.publish(batch, (), 10.0)
    thread.join()

    assert len({delivery.message_id for delivery in taken}) == len(taken) == 80
    assert {delivery.deliveries for delivery in taken} == {1}


def test_closing_a_broker_gives_back_what_it_held_and_counts_it(open_broker: BrokerOpener) -> None:
    first, second = open_broker(), open_broker()
    first.publish([message("a")], (), 10.0)
    fetch(first)
    first.close()

    assert [each.deliveries for each in fetch(second, wait=10.0)] == [2]


# -- delays ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "rest"), [(15.0, 1), (100.0, 16), (3600.0, 256), (1e7, 65536), (1e12, 65536)]
)
def test_a_delayed_message_rests_as_long_as_it_may(
    open_broker: BrokerOpener, connection: AmqpConnection, namespace: str, seconds: float, rest: int
) -> None:
    broker = open_broker()
    broker.publish([message("a", eta=clock.now() + seconds)], (), 10.0)

    assert depth(connection, Names(namespace).rests("q")[DELAYS.index(rest)]) == 1
    assert broker.survey(["q"], 10.0)["q"].delayed == 1
    assert fetch(broker) == []
    assert broker.purge(["q"], 10.0) == 1
    assert broker.survey(["q"], 10.0)["q"].delayed == 0


def test_a_message_goes_from_rest_to_rest_and_is_never_early(open_broker: BrokerOpener) -> None:
    broker = open_broker()
    etas = {f"{number}": clock.now() + 1.2 + number / 100 for number in range(100)}
    broker.publish([message(name, eta=eta) for name, eta in etas.items()], (), 10.0)
    came: dict[str, float] = {}
    while len(came) < 100:
        found = fetch(broker, limit=10, wait=20.0)
        assert found
        came |= {each.message_id: clock.now() for each in found}

    assert min(came[name] - eta for name, eta in etas.items()) >= 0.0


@pytest.mark.parametrize("seconds", [0.1, 1.1], ids=["near", "resting"])
def test_what_came_due_while_no_worker_ran_is_there_at_the_first_look(
    open_broker: BrokerOpener, seconds: float, eventually: Eventually
) -> None:
    eta = clock.now() + seconds
    open_broker().publish([message("a", eta=eta)], (), 10.0)
    eventually(lambda: clock.now() > eta)

    assert [each.message_id for each in fetch(open_broker())] == ["a"]


def test_two_workers_move_delayed_messages_and_none_twice(open_broker: BrokerOpener) -> None:
    brokers = [open_broker(), open_broker()]
    for broker in brokers:
        assert fetch(broker) == []
    eta = clock.now() + 1.2
    sent = [message(f"{number}", eta=eta + number / 1000) for number in range(500)]
    brokers[0].publish(sent, (), 10.0)
    got: list[str] = []
    while len(got) < 500:
        for broker in brokers:
            found = fetch(broker, wait=0.5 if len(got) < 500 else 0.0)
            got += [each.message_id for each in found]

    assert sorted(got, key=int) == [each.message_id for each in sent]
    assert fetch(brokers[0], wait=0.5) == []
    assert brokers[0].survey(["q"], 10.0)["q"].delayed == 0


def test_a_delayed_message_keeps_its_priority(open_broker: BrokerOpener) -> None:
    broker = open_broker()
    eta = clock.now() + 0.3
    sent = [message(f"{priority}", eta=eta, priority=priority) for priority in (1, 9, 5)]
    fetch(broker)
    broker.publish(sent, (), 10.0)
    deadline = clock.Deadline(20.0)
    while broker.survey(["q"], 10.0)["q"].ready < 3:
        assert not deadline.expired
        clock.sleep(0.02)

    assert [each.message_id for each in fetch(broker)] == ["9", "5", "1"]


# -- what lies on the server -----------------------------------------------------------------------


def test_a_buried_message_lies_in_a_queue_of_its_own_with_the_reason(
    open_broker: BrokerOpener, connection: AmqpConnection, namespace: str
) -> None:
    broker = open_broker()
    broker.publish([message("a")], (), 10.0)
    assert settle(broker, fetch(broker)[0], Action.BURY, "ä" * 400)

    async def get(session: Session) -> Received | None:
        return await (await session.channel()).get(Names(namespace).dead("q"))

    found = connection.call(get, 10.0)
    assert found is not None
    assert (found.body, found.headers["reason"], found.headers["id"]) == (
        b"body of a",
        "ä" * 400,
        "a",
    )


def test_looking_makes_no_queue(
    open_broker: BrokerOpener, connection: AmqpConnection, namespace: str
) -> None:
    broker = open_broker()

    assert broker.survey(["q"], 10.0)["q"].ready == 0
    assert broker.purge(["q"], 10.0) == 0
    assert {depth(connection, name) for name in Names(namespace).all("q")} == {-1}


def test_the_queues_of_many_messages_are_bounded(
    open_broker: BrokerOpener, connection: AmqpConnection, namespace: str
) -> None:
    broker = open_broker()
    for number in range(30):
        broker.publish([message(f"{number}", eta=clock.now() + 2.0**number)], (), 10.0)
    names = Names(namespace).all("q")

    assert len(names) == 8
    assert sum(max(0, depth(connection, name)) for name in names) <= 30
    fetch(broker)
    assert broker.purge(["q"], 10.0) >= 20
    assert broker.survey(["q"], 10.0)["q"].ready == 0


@pytest.mark.parametrize("name", ["x" * 300, "ä" * 200, "amq.direct", "%%", "/later", "a/dead"])
def test_any_name_makes_a_queue_of_its_own(open_broker: BrokerOpener, name: str) -> None:
    broker = open_broker()
    near = name[:-1] + "y"
    sent = [message("a", queue=name), message("b", queue=near, eta=clock.now() + 0.2)]
    broker.publish(sent, (), 10.0)

    assert [(each.message_id, each.queue) for each in fetch(broker, name)] == [("a", name)]
    assert [each.queue for each in fetch(broker, near, wait=10.0)] == [near]


@pytest.mark.parametrize("namespace_too", ["amq.tasks", "ü" * 64])
def test_any_namespace_will_do(
    open_broker: BrokerOpener, namespace: str, namespace_too: str
) -> None:
    broker = open_broker(within=namespace_too + namespace)
    broker.publish([message("a")], (), 10.0)

    assert [each.message_id for each in fetch(broker)] == ["a"]


def test_names_of_one_namespace_never_meet() -> None:
    queues = ["q", "q/later", "q/dead", "q%2Flater", "x" * 300, "x" * 301, "", "amq."]
    names = [name for queue in queues for name in Names("ns").all(queue)]

    assert len(set(names)) == len(names)
    assert max(len(name.encode()) for name in names) <= 255


def test_what_somebody_else_put_into_a_queue_is_delivered_as_it_is(
    open_broker: BrokerOpener, connection: AmqpConnection, namespace: str
) -> None:
    broker = open_broker()
    fetch(broker)
    headers = [{}, {"id": 7, "priority": "x", "counted": b"", "eta": "soon"}]
    name = Names(namespace).main("q")
    strange = [Parcel(queue=name, body=b"?", headers=each) for each in headers]
    connection.call(lambda session: session.publish(strange), 10.0)

    found = fetch(broker, limit=2)
    assert [(each.message_id, each.body, each.deliveries) for each in found] == [
        ("", b"?", 1),
        ("7", b"?", 1),
    ]
    assert settle(broker, found[0], Action.BURY)
    assert settle(broker, found[1], Action.RELEASE)


def test_the_largest_message_passes(open_broker: BrokerOpener) -> None:
    broker = open_broker()
    body = bytes(broker.capabilities.max_message_bytes)
    broker.publish([QueuedMessage(message_id="m" * 300, queue="q", body=body)], (), 60.0)

    (found,) = fetch(broker)
    assert (found.message_id, len(found.body)) == ("m" * 300, len(body))


def test_options_of_ours_are_refused(namespace: str) -> None:
    with pytest.raises(UrlError, match="upshot_lease"):
        AmqpBroker(Url.parse("amqp://h?upshot_lease=3"), namespace)
