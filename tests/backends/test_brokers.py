"""What every broker does, on every service that carries messages.

A service is one parameter of the fixture `url`; to add one, add its name and what starts it.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from upshot import clock
from upshot.broker import Action, Broker, Delivery, QueuedMessage, Settlement
from upshot.registry import broker_class
from upshot.url import Url
from upshot_conformance.servers import Ensemble, Server

SERVICES = [
    "memory",
    "sqlite",
    "redis",
    "redis-cluster",
    "redis-sentinel",
    "rabbitmq",
    "postgresql",
    "mariadb",
]
PROGRAMS = Path(__file__).parent / "programs"
LONG = 60.0  # seconds of a lease that outlives the test
SHORT = 0.2  # seconds of a lease that the test lets run out
BRIEF = 2.0  # seconds of a lease that the test ends, or renews, before it runs out

BrokerOpener = Callable[..., Broker]


@pytest.fixture(params=SERVICES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a real service of each kind."""
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}"
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/tasks.db"
    name = request.param.replace("-", "_")
    server: Server | Ensemble = request.getfixturevalue(f"{name}_server")
    return server.url


@pytest.fixture
def shared_url(url: str) -> str:
    """The URL of a service that other processes reach too."""
    if not broker_class(Url.parse(url)).capabilities.shared:
        pytest.skip("the service declares that other processes do not see its messages")
    return url


@pytest.fixture
def namespace() -> str:
    return f"test-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def open_broker(url: str, namespace: str) -> Iterator[BrokerOpener]:
    """Opens brokers at the URL, in the test's namespace unless another is named."""
    opened: list[Broker] = []

    def open_one(other: str | None = None) -> Broker:
        parsed = Url.parse(url)
        opened.append(broker_class(parsed)(parsed, other or namespace))
        return opened[-1]

    yield open_one
    for broker in opened:
        broker.close()


@pytest.fixture
def broker(open_broker: BrokerOpener) -> Broker:
    return open_broker()


def message(
    message_id: str, *, queue: str = "q", priority: int = 0, eta: float | None = None
) -> QueuedMessage:
    body = f"body of {message_id}".encode()
    return QueuedMessage(message_id=message_id, queue=queue, body=body, priority=priority, eta=eta)


def publish(broker: Broker, *messages: QueuedMessage) -> None:
    broker.publish(messages, (), 5.0)


def fetch(
    broker: Broker,
    *queues: str,
    limit: int = 100,
    wait: float = 0.0,
    lease: float = LONG,
    worker: str = "w",
) -> list[Delivery]:
    found = broker.fetch(queues or ("q",), limit=limit, wait=wait, lease=lease, worker=worker)
    return list(found)


def ids(deliveries: list[Delivery]) -> list[str]:
    return [delivery.message_id for delivery in deliveries]


def settle(broker: Broker, delivery: Delivery, action: Action = Action.ACK) -> bool:
    return broker.settle([Settlement(delivery=delivery, action=action)], 5.0)[0]


def leased(broker: Broker, number: int) -> int | None:
    """Return what a survey tells if so many messages are at workers."""
    return number if broker.capabilities.counts_leased else None


def eventually(is_so: Callable[[], bool]) -> None:
    """Wait until something is so; fail after ten seconds."""
    deadline = clock.Deadline(10.0)
    while not is_so():
        assert not deadline.expired
        clock.sleep(0.005)


# -- publish and fetch ----------------------------------------------------------------------------


def test_a_message_arrives_as_it_was_published(broker: Broker) -> None:
    publish(broker, QueuedMessage(message_id="m", queue="q", body=bytes(range(256))))

    (delivery,) = fetch(broker)

    assert (delivery.message_id, delivery.queue) == ("m", "q")
    assert delivery.body == bytes(range(256))
    assert delivery.deliveries == 1
    assert delivery.token


def test_larger_priorities_come_first_and_within_one_the_oldest(broker: Broker) -> None:
    publish(broker, message("a"), message("b", priority=9), message("c", priority=5))
    publish(broker, message("d"), message("e", priority=9))

    assert ids(fetch(broker)) == ["b", "e", "c", "a", "d"]


def test_no_more_than_the_limit_is_fetched(broker: Broker) -> None:
    publish(broker, *(message(f"{number:02}") for number in range(10)))

    assert ids(fetch(broker, limit=3)) == ["00", "01", "02"]
    assert ids(fetch(broker, limit=3)) == ["03", "04", "05"]


def test_a_leased_message_goes_to_nobody_else(open_broker: BrokerOpener) -> None:
    first, second = open_broker(), open_broker()
    publish(first, message("a"))

    assert ids(fetch(first)) == ["a"]
    assert fetch(second) == []


def test_publishing_an_id_twice_leaves_one_message_or_two_as_declared(broker: Broker) -> None:
    publish(broker, message("a"), message("b"))
    publish(broker, message("a"), message("c"))

    twice = [] if broker.capabilities.deduplicates else ["a"]
    assert ids(fetch(broker)) == ["a", "b", *twice, "c"]


def test_a_message_that_is_published_again_while_leased_is_delivered_again_only_as_declared(
    broker: Broker,
) -> None:
    publish(broker, message("a"))
    fetch(broker)
    publish(broker, message("a"))

    assert ids(fetch(broker)) == ([] if broker.capabilities.deduplicates else ["a"])


def test_only_the_named_queues_are_served(broker: Broker) -> None:
    publish(broker, message("a", queue="x"), message("b", queue="y"), message("c", queue="z"))

    assert sorted(ids(fetch(broker, "x", "z"))) == ["a", "c"]


def test_queues_are_served_by_priority_or_fairly_as_declared(broker: Broker) -> None:
    for number in range(4):
        low = message(f"low {number}", queue="x", priority=1)
        publish(broker, low, message(f"high {number}", queue="y", priority=8))

    got = [ids(fetch(broker, "x", "y", limit=1))[0].split()[0] for _ in range(4)]
    ranked = broker.capabilities.ranks_queues
    assert sorted(got) == (["high"] * 4 if ranked else ["high", "high", "low", "low"])


def test_a_queue_that_is_named_twice_is_served_once(broker: Broker) -> None:
    publish(broker, message("a"), message("b"))

    assert ids(fetch(broker, "q", "q")) == ["a", "b"]


@pytest.mark.parametrize("name", ["a b", "ä/ö:*?[x]", "q\n2", "'; DROP TABLE messages", "%s:{}"])
def test_queue_names_may_hold_any_character(broker: Broker, name: str) -> None:
    publish(broker, message("m", queue=name), message("n", queue=name + "x"))

    assert [(found.message_id, found.queue) for found in fetch(broker, name)] == [("m", name)]


@pytest.mark.parametrize("pair", [("a", "ab"), ("a", "a:"), ("a:b", "a"), ("A", "a")])
def test_namespaces_do_not_see_each_other(
    open_broker: BrokerOpener, namespace: str, pair: tuple[str, str]
) -> None:
    ours, theirs = (open_broker(f"{namespace}{name}") for name in pair)
    publish(ours, message("same"))
    publish(theirs, message("same"), message("other"))

    assert theirs.purge(["q"], 5.0) == 2
    assert ours.survey(["q"], 5.0)["q"].ready == 1
    assert ids(fetch(ours)) == ["same"]


# -- moments ---------------------------------------------------------------------------------------


def test_a_delayed_message_comes_at_its_eta_and_not_before(broker: Broker) -> None:
    eta = clock.now() + 0.4
    publish(broker, message("late", eta=eta))

    found = fetch(broker) or fetch(broker, wait=20.0)
    assert ids(found) == ["late"]
    assert eta - 0.01 <= clock.now() < eta + 10.0


def test_an_eta_in_the_past_is_at_once(broker: Broker) -> None:
    publish(broker, message("a", eta=clock.now() - 100.0), message("b", eta=0.0))

    assert sorted(ids(fetch(broker))) == ["a", "b"]


def test_a_wait_ends_empty_when_its_time_is_over(broker: Broker) -> None:
    began = clock.monotonic()

    assert fetch(broker, wait=0.3) == []
    assert 0.29 <= clock.monotonic() - began < 5.0


def test_a_waiting_fetch_wakes_when_another_thread_publishes(open_broker: BrokerOpener) -> None:
    waiting, publishing = open_broker(), open_broker()
    arrived: list[float] = []
    thread = threading.Thread(
        target=lambda: arrived.extend(clock.monotonic() for _ in fetch(waiting, wait=20.0))
    )
    thread.start()
    eventually(lambda: publishing.survey(["q"], 5.0)["q"].workers != ())  # it has begun
    published = clock.monotonic()
    publish(publishing, message("a"))
    thread.join()

    assert len(arrived) == 1
    assert arrived[0] - published < 10.0  # long before its wait is over


# -- leases ----------------------------------------------------------------------------------------


def test_a_message_whose_lease_ran_out_is_delivered_again_and_counted(
    open_broker: BrokerOpener,
) -> None:
    first, second = open_broker(), open_broker()
    publish(first, message("a"))
    (lost,) = fetch(first, lease=SHORT)

    (found,) = fetch(second, wait=5.0)

    assert (found.message_id, found.body, found.deliveries) == ("a", lost.body, 2)
    assert found.token != lost.token


def test_what_was_delivered_again_comes_before_what_was_published_later(broker: Broker) -> None:
    publish(broker, message("a"))
    fetch(broker, lease=SHORT)
    publish(broker, message("b", eta=clock.now() + 2 * SHORT))
    eventually(lambda: broker.survey(["q"], 5.0)["q"].ready == 2)

    assert ids(fetch(broker)) == ["a", "b"]


def test_a_lease_that_is_renewed_does_not_run_out(broker: Broker) -> None:
    publish(broker, message("a"))
    held = fetch(broker, lease=BRIEF)

    assert list(broker.beat("w", ["q"], held, lease=LONG, timeout=5.0)) == [True]
    assert fetch(broker, wait=BRIEF + SHORT) == []
    assert settle(broker, held[0])


@pytest.mark.parametrize("action", [Action.ACK, Action.RELEASE, Action.BURY, Action.REPLACE])
def test_an_outdated_token_settles_nothing(broker: Broker, action: Action) -> None:
    publish(broker, message("a"))
    (lost,) = fetch(broker, lease=SHORT)
    (found,) = fetch(broker, wait=5.0)
    new = message("new") if action is Action.REPLACE else None

    late = Settlement(delivery=lost, action=action, message=new)
    assert list(broker.settle([late], 5.0)) == [False]
    assert fetch(broker) == []
    status = broker.survey(["q"], 5.0)["q"]
    assert (status.ready, status.leased, status.dead) == (0, leased(broker, 1), 0)
    assert settle(broker, found)


def test_an_outdated_token_renews_nothing(broker: Broker) -> None:
    publish(broker, message("a"), message("b"))
    lost = fetch(broker, limit=1, lease=SHORT)
    found = fetch(broker, limit=1) + fetch(broker, limit=1, wait=5.0, lease=BRIEF)

    answers = broker.beat("w", ["q"], [*lost, *found], lease=LONG, timeout=5.0)
    assert dict(zip(ids(lost), answers, strict=False)) == {"a": False}
    assert list(answers[1:]) == [True, True]
    assert fetch(broker, wait=BRIEF + SHORT) == []


# -- ends ------------------------------------------------------------------------------------------


def test_an_acknowledged_message_is_gone_and_can_be_settled_once(broker: Broker) -> None:
    publish(broker, message("a"))
    (delivery,) = fetch(broker, lease=BRIEF)

    assert settle(broker, delivery)
    assert not settle(broker, delivery)
    assert fetch(broker, wait=BRIEF + SHORT) == []


def test_a_batch_of_settlements_is_answered_one_by_one(broker: Broker) -> None:
    publish(broker, message("a"), message("b"), message("c"))
    held = fetch(broker)
    settle(broker, held[1])

    answers = broker.settle([Settlement(delivery=delivery) for delivery in held], 5.0)
    assert list(answers) == [True, False, True]
    assert list(broker.settle([], 5.0)) == []


def test_a_released_message_comes_at_once_and_the_delivery_does_not_count(
    open_broker: BrokerOpener,
) -> None:
    first, second = open_broker(), open_broker()
    publish(first, message("a"))
    (given_back,) = fetch(first)

    assert settle(first, given_back, Action.RELEASE)
    (found,) = fetch(second)
    assert (found.message_id, found.deliveries) == ("a", 1)
    assert not settle(first, given_back)


def test_replacing_puts_the_new_message_in_place_of_the_old_one(broker: Broker) -> None:
    publish(broker, message("old"))
    fetch(broker, lease=SHORT)
    (delivery,) = fetch(broker, wait=5.0)
    new = message("new", queue="r", priority=3)

    ended = Settlement(delivery=delivery, action=Action.REPLACE, message=new)
    assert list(broker.settle([ended], 5.0)) == [True]
    assert fetch(broker) == []
    (found,) = fetch(broker, "r")
    assert (found.message_id, found.body, found.deliveries) == ("new", new.body, 1)
    assert list(broker.settle([ended], 5.0)) == [False]
    assert fetch(broker, "r") == []


def test_a_message_may_be_replaced_by_one_with_its_own_id(broker: Broker) -> None:
    publish(broker, message("a"))
    (delivery,) = fetch(broker)
    eta = clock.now() + SHORT
    new = message("a", eta=eta)

    ended = Settlement(delivery=delivery, action=Action.REPLACE, message=new)
    assert list(broker.settle([ended], 5.0)) == [True]
    found = fetch(broker) or fetch(broker, wait=20.0)
    assert clock.now() >= eta - 0.01
    assert [each.deliveries for each in found] == [1]


def test_a_buried_message_is_counted_and_never_delivered(broker: Broker) -> None:
    publish(broker, message("a"))
    (delivery,) = fetch(broker, lease=BRIEF)
    ended = Settlement(delivery=delivery, action=Action.BURY, reason="it cannot be decoded")

    assert list(broker.settle([ended], 5.0)) == [True]
    assert broker.survey(["q"], 5.0)["q"].dead == 1
    assert fetch(broker, wait=BRIEF + SHORT) == []


# -- survey and purge ------------------------------------------------------------------------------


def test_a_survey_counts_what_is_in_each_queue(broker: Broker) -> None:
    publish(broker, *(message(f"{number}") for number in range(6)))
    publish(broker, message("late", eta=clock.now() + LONG), message("far", queue="r"))
    held = fetch(broker, limit=3)
    settle(broker, held[0], Action.BURY)
    settle(broker, held[1])

    found = broker.survey(["q", "r", "unknown"], 5.0)

    status = found["q"]
    assert (status.ready, status.delayed, status.dead) == (3, 1, 1)
    assert status.leased == leased(broker, 1)
    assert (found["r"].ready, found["r"].leased) == (1, leased(broker, 0))
    unknown = found["unknown"]
    assert (unknown.ready, unknown.delayed, unknown.dead) == (0, 0, 0)
    assert unknown.leased == leased(broker, 0)
    assert not unknown.workers


def test_a_message_whose_lease_ran_out_is_ready_again(broker: Broker) -> None:
    publish(broker, message("a"))
    fetch(broker, lease=BRIEF)
    held = broker.survey(["q"], 5.0)["q"]
    eventually(lambda: broker.survey(["q"], 5.0)["q"].ready == 1)

    assert (held.ready, held.leased) == (0, leased(broker, 1))
    assert broker.survey(["q"], 5.0)["q"].leased == leased(broker, 0)


def test_workers_are_shown_while_they_give_signs_of_life(broker: Broker) -> None:
    broker.beat("w1", ["q", "r"], [], lease=LONG, timeout=5.0)
    broker.beat("w2", ["q"], [], lease=BRIEF, timeout=5.0)
    before = broker.survey(["q", "r"], 5.0)
    if before["q"].workers is None:
        pytest.skip("the service cannot tell")
    eventually(lambda: broker.survey(["q"], 5.0)["q"].workers == ("w1",))
    broker.beat("w1", [], [], lease=LONG, timeout=5.0)

    assert (before["q"].workers, before["r"].workers) == (("w1", "w2"), ("w1",))
    assert broker.survey(["q"], 5.0)["q"].workers == ()


def test_a_purge_removes_all_but_what_is_leased(broker: Broker) -> None:
    publish(broker, *(message(f"{number}") for number in range(5)))
    publish(broker, message("late", eta=clock.now() + LONG), message("other", queue="r"))
    held = fetch(broker, limit=2)
    settle(broker, held[0], Action.BURY)

    assert broker.purge(["q"], 5.0) == 5
    status = broker.survey(["q"], 5.0)["q"]
    assert (status.ready, status.delayed, status.dead) == (0, 0, 0)
    assert status.leased == leased(broker, 1)
    assert broker.survey(["r"], 5.0)["r"].ready == 1
    assert settle(broker, held[1])


# -- many at once ----------------------------------------------------------------------------------


def test_eight_threads_get_each_of_500_messages_once(open_broker: BrokerOpener) -> None:
    shared, got = open_broker(), list[str]()
    publish(shared, *(message(f"{number}", priority=number % 3) for number in range(500)))

    def work(broker: Broker) -> None:
        while deliveries := fetch(broker, limit=3, wait=0.2):
            settled = broker.settle([Settlement(delivery=each) for each in deliveries], 5.0)
            got.extend(
                each.message_id for each, ours in zip(deliveries, settled, strict=True) if ours
            )

    brokers = [shared, shared, shared, shared, *(open_broker() for _ in range(4))]
    threads = [threading.Thread(target=work, args=(broker,)) for broker in brokers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(got) == 500
    assert set(Counter(got).values()) == {1}


def test_four_processes_get_each_of_400_messages_once(
    shared_url: str, namespace: str, broker: Broker
) -> None:
    publish(broker, *(message(f"{number}") for number in range(400)))
    command = [sys.executable, str(PROGRAMS / "fetch_all.py"), shared_url, namespace, "q"]

    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    got = [line for process in running for line in process.communicate(timeout=60)[0].split()]

    assert [process.returncode for process in running] == [0, 0, 0, 0]
    assert len(got) == 400
    assert set(Counter(got).values()) == {1}


def test_what_a_killed_process_held_is_delivered_again(
    shared_url: str, namespace: str, broker: Broker
) -> None:
    publish(broker, *(message(f"{number}") for number in range(50)))
    command = [sys.executable, str(PROGRAMS / "hold.py"), shared_url, namespace, "q", "1.0"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "50\n"
        process.kill()

    found: list[Delivery] = []
    deadline = clock.Deadline(10.0)
    while len(found) < 50 and not deadline.expired:
        found += fetch(broker, wait=1.0)

    assert sorted(ids(found), key=int) == [f"{number}" for number in range(50)]
    assert {delivery.deliveries for delivery in found} == {2}


def test_a_broker_closes_twice(open_broker: BrokerOpener) -> None:
    broker = open_broker()
    publish(broker, message("a"))

    broker.close()
    broker.close()
