"""The RabbitMQ broker when connections, servers and workers fail."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from upshot import clock
from upshot.broker import Action, Delivery, QueuedMessage, Settlement
from upshot.clock import Deadline
from upshot.errors import ServiceUnavailableError
from upshot.retrying import call, translate
from upshot.service import OpenService
from upshot.url import Url
from upshot_backends.amqp.broker import AmqpBroker
from upshot_backends.amqp.driver import DRIVER_ERRORS, NoAnswerError
from upshot_conformance.servers import RabbitMQServer

BrokerOpener = Callable[..., AmqpBroker]
Eventually = Callable[[Callable[[], bool]], None]

PROGRAMS = Path(__file__).parents[1] / "programs"
LONG = 60.0  # seconds of a lease that outlives the test


def message(message_id: str, *, eta: float | None = None, queue: str = "q") -> QueuedMessage:
    return QueuedMessage(message_id=message_id, queue=queue, body=message_id.encode(), eta=eta)


def fetch(
    broker: AmqpBroker, *queues: str, limit: int = 100, wait: float = 0.0, lease: float = LONG
) -> list[Delivery]:
    found = broker.fetch(queues or ("q",), limit=limit, wait=wait, lease=lease, worker="w")
    return list(found)


def settle(broker: AmqpBroker, delivery: Delivery, timeout: float = 10.0) -> bool:
    return broker.settle([Settlement(delivery=delivery)], timeout)[0]


def patiently(broker: AmqpBroker, operation: Callable[[float], Any]) -> Any:
    """Do what the core does: try again until it works, for thirty seconds."""
    url = Url.parse("amqp://h")
    return call(operation, errors=DRIVER_ERRORS, url=url, deadline=Deadline(30.0), limit=30.0)


def is_transient(error: Exception) -> bool:
    found = translate(error, DRIVER_ERRORS, Url.parse("amqp://h"))
    return isinstance(found, ServiceUnavailableError)


# -- connections -----------------------------------------------------------------------------------


def test_a_cut_connection_ends_its_leases_and_counts_them(
    open_broker: BrokerOpener, network: Any
) -> None:
    broker, other = open_broker(network.url), open_broker()
    broker.publish([message("a"), message("b")], (), 10.0)
    held = fetch(broker)
    network.cut()

    found = fetch(other, limit=1, wait=30.0) + fetch(other, limit=1, wait=30.0)
    assert [(each.message_id, each.deliveries) for each in found] == [("a", 2), ("b", 2)]
    lost = patiently(broker, lambda seconds: broker.settle([Settlement(delivery=held[0])], seconds))
    assert list(lost) == [False]
    assert list(broker.beat("w", ["q"], held, lease=LONG, timeout=10.0)) == [False, False]
    assert [settle(other, each) for each in found] == [True, True]


def test_a_connection_cut_in_mid_fetch_is_an_error_and_the_next_fetch_works(
    open_broker: BrokerOpener, network: Any, eventually: Eventually
) -> None:
    broker = open_broker(network.url)
    failed: queue.SimpleQueue[Exception] = queue.SimpleQueue()

    def wait() -> None:
        try:
            fetch(broker, wait=60.0)
        except Exception as exc:
            failed.put(exc)

    threading.Thread(target=wait, daemon=True).start()
    eventually(lambda: network.connections == 1)
    network.cut()

    assert is_transient(failed.get(timeout=30.0))
    broker.publish([message("a")], (), 10.0)
    assert len(patiently(broker, lambda _: fetch(broker, wait=10.0))) == 1


def test_publishing_through_a_network_that_breaks_loses_nothing(
    open_broker: BrokerOpener, network: Any
) -> None:
    broker, other = open_broker(network.url), open_broker()
    for number in range(30):
        batch = [message(f"{number}/{each}") for each in range(10)]
        cut = threading.Timer(number / 3000, network.cut)  # somewhere in the middle
        cut.start()
        patiently(broker, partial(broker.publish, batch, ()))
        cut.join()

    got = Counter(each.message_id for each in fetch(other, limit=10_000))
    assert set(got) == {f"{number}/{each}" for number in range(30) for each in range(10)}


def test_a_settlement_through_a_network_that_was_dead_is_told_once_it_is_alive(
    open_broker: BrokerOpener, network: Any
) -> None:
    broker, other = open_broker(network.url), open_broker()
    broker.publish([message("a")], (), 10.0)
    (held,) = fetch(broker)
    network.die()

    with pytest.raises(NoAnswerError):
        settle(broker, held, timeout=0.3)
    with pytest.raises(NoAnswerError):
        broker.beat("w", ["q"], [held], lease=LONG, timeout=0.3)
    network.revive()
    assert settle(broker, held)
    assert not settle(broker, held)
    broker.close()
    assert fetch(other) == []


def test_a_dead_network_ends_every_hook_in_time(open_broker: BrokerOpener, network: Any) -> None:
    broker = open_broker(network.url)
    broker.publish([message("a"), message("b")], (), 10.0)
    held = fetch(broker, limit=1)
    network.die()
    hooks: list[Callable[[], object]] = [
        lambda: broker.publish([message("c")], (), 0.3),
        lambda: broker.settle([Settlement(delivery=held[0])], 0.3),
        lambda: broker.settle(
            [Settlement(delivery=held[0], action=Action.REPLACE, message=message("d"))], 0.3
        ),
        lambda: broker.beat("w", ["q"], held, lease=LONG, timeout=0.3),
        lambda: broker.survey(["q"], 0.3),
        lambda: broker.purge(["q"], 0.3),
    ]
    for hook in hooks:
        began = clock.monotonic()
        with pytest.raises(Exception) as caught:  # noqa: PT011 - any that is transient
            hook()
        assert is_transient(caught.value)
        assert clock.monotonic() - began < 5.0


def test_a_queue_that_is_deleted_under_a_waiting_fetch_is_made_again(
    open_broker: BrokerOpener, server: RabbitMQServer, namespace: str, eventually: Eventually
) -> None:
    broker = open_broker()
    found: queue.SimpleQueue[list[Delivery] | Exception] = queue.SimpleQueue()

    def wait() -> None:
        for _ in range(2):
            try:
                found.put(fetch(broker, wait=60.0))
            except Exception as exc:
                found.put(exc)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    main = f"{namespace}/q"
    eventually(lambda: f"{main}\t1" in server.control("list_queues", "name", "consumers"))
    server.control("delete_queue", main)
    error = found.get(timeout=30.0)
    assert isinstance(error, Exception)
    assert is_transient(error)

    eventually(lambda: f"{main}\t1" in server.control("list_queues", "name", "consumers"))
    open_broker().publish([message("a")], (), 10.0)
    deliveries = found.get(timeout=30.0)
    assert isinstance(deliveries, list)
    assert [each.message_id for each in deliveries] == ["a"]
    thread.join()


def test_publishing_to_a_queue_that_was_deleted_makes_it_again(
    open_broker: BrokerOpener, server: RabbitMQServer, namespace: str
) -> None:
    broker = open_broker()
    broker.publish([message("a")], (), 10.0)
    server.control("delete_queue", f"{namespace}/q")
    broker.publish([message("b"), message("c")], (), 10.0)

    assert [each.message_id for each in fetch(broker)] == ["b", "c"]


def test_closing_ends_a_waiting_fetch(
    open_broker: BrokerOpener, network: Any, eventually: Eventually
) -> None:
    broker = open_broker(network.url)
    failed: queue.SimpleQueue[Exception] = queue.SimpleQueue()

    def wait() -> None:
        try:
            fetch(broker, wait=60.0)
        except Exception as exc:
            failed.put(exc)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    eventually(lambda: network.connections == 1)
    broker.close()

    assert is_transient(failed.get(timeout=30.0))
    thread.join(timeout=30.0)
    assert not thread.is_alive()


# -- processes -------------------------------------------------------------------------------------


def test_a_frozen_process_loses_its_lease_and_its_messages_are_counted(
    open_broker: BrokerOpener, server: RabbitMQServer, namespace: str
) -> None:
    broker = open_broker()
    broker.publish([message("a"), message("b")], (), 10.0)
    command = [sys.executable, str(PROGRAMS / "hold.py"), server.url, namespace, "q", "2.0"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "2\n"
        process.send_signal(signal.SIGSTOP)
        found = fetch(broker, limit=1, wait=60.0) + fetch(broker, limit=1, wait=60.0)
        process.kill()

    assert [(each.message_id, each.deliveries) for each in found] == [("a", 2), ("b", 2)]


def test_a_forked_child_opens_its_own_and_the_parent_keeps_its_lease(
    server: RabbitMQServer, namespace: str
) -> None:
    url = Url.parse(server.url)
    service = OpenService(lambda: AmqpBroker(url, namespace), url=url, timeout=10.0)
    service.call(lambda broker, seconds: broker.publish([message("a"), message("b")], (), seconds))
    (held,) = fetch(service.current, limit=1)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            found = fetch(service.current)
            code = 0 if [each.message_id for each in found] == ["b"] else 2
            service.close()
        finally:
            os._exit(code)

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert settle(service.current, held)
    service.close()


def test_of_a_thousand_messages_none_is_lost_with_a_killed_worker(
    open_broker: BrokerOpener, server: RabbitMQServer, namespace: str
) -> None:
    broker = open_broker()
    broker.publish([message(f"{number}") for number in range(1000)], (), 30.0)
    command = [sys.executable, str(PROGRAMS / "fetch_all.py"), server.url, namespace, "q"]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    doomed, other = running
    assert doomed.stdout is not None
    before = [doomed.stdout.readline() for _ in range(50)]
    doomed.kill()
    got = Counter("".join([*before, doomed.communicate()[0]]).split())
    got.update(other.communicate(timeout=100)[0].split())

    # A killed program may have settled what it had no time to print.
    assert other.returncode == 0
    assert len(got) >= 1000 - 7
    assert set(got.values()) == {1}
    assert fetch(broker, wait=1.0) == []
    assert broker.survey(["q"], 10.0)["q"].ready == 0


# -- the server ------------------------------------------------------------------------------------


def test_a_killed_server_keeps_everything(
    fragile: RabbitMQServer, open_broker: BrokerOpener
) -> None:
    broker = open_broker(fragile.url)
    broker.publish([message("buried"), message("leased"), message("ready")], (), 10.0)
    buried, leased = fetch(broker, limit=2)
    reason = Settlement(delivery=buried, action=Action.BURY, reason="for good")
    assert list(broker.settle([reason], 10.0)) == [True]
    eta = clock.now() + 12.0
    broker.publish([message("delayed", eta=eta), message("far", eta=eta + 1e6)], (), 10.0)
    fragile.write_down_queues()
    fragile.kill()
    fragile.restart()

    status = patiently(broker, lambda seconds: broker.survey(["q"], seconds))["q"]
    assert status.dead == 1
    assert not settle(broker, leased)
    got: dict[str, int] = {}
    while not {"ready", "leased", "delayed"} <= set(got):
        found = patiently(broker, lambda _: fetch(broker, wait=30.0))
        assert found
        assert clock.now() >= eta or "delayed" not in {each.message_id for each in found}
        got |= {each.message_id: each.deliveries for each in found}
    # Acknowledgements are not on disk at once, nor is what was delivered and what was not.
    assert set(got) <= {"ready", "leased", "delayed", "buried"}
    assert (got["leased"], got["ready"] <= 2) == (2, True)
    assert broker.survey(["q"], 10.0)["q"].delayed == 1


def test_a_server_that_takes_one_lease_back_leaves_the_others(
    fragile: RabbitMQServer, open_broker: BrokerOpener
) -> None:
    # Milliseconds: how long what comes through a channel, from its opening on, may be
    # unacknowledged, and how often that is looked at.
    change = "application:set_env(rabbit, consumer_timeout, {}), "
    change += "application:set_env(rabbit, channel_tick_interval, {})."
    broker = open_broker(fragile.url)
    broker.publish([message("other"), message("long")], (), 10.0)
    (other,) = fetch(broker, limit=1)
    try:
        fragile.control("eval", change.format(1_000, 100))
        (long,) = fetch(broker, limit=1)
        fragile.control("eval", change.format(1_800_000, 100))
        (again,) = patiently(broker, lambda _: fetch(broker, limit=1, wait=60.0))
    finally:
        fragile.control("eval", change.format(1_800_000, 60_000))

    assert (again.message_id, again.deliveries) == (long.message_id, 2)
    assert not settle(broker, long)
    assert settle(broker, again)
    assert settle(broker, other)


def test_a_server_without_memory_takes_no_messages_for_now_and_leases_stay(
    fragile: RabbitMQServer, open_broker: BrokerOpener, eventually: Eventually
) -> None:
    broker = open_broker(fragile.url)
    broker.publish([message("a"), message("b")], (), 10.0)
    held = fetch(broker)

    def is_refused() -> bool:
        try:
            broker.publish([message("more")], (), 1.0)
        except NoAnswerError:
            return True
        return False

    fragile.control("set_vm_memory_high_watermark", "absolute", "1MB")
    try:
        eventually(is_refused)
        assert list(broker.beat("w", ["q"], held, lease=LONG, timeout=10.0)) == [True, True]
        assert settle(broker, held[0])
        new = Settlement(delivery=held[1], action=Action.REPLACE, message=message("new"))
        with pytest.raises(NoAnswerError):
            broker.settle([new], 1.0)
    finally:
        fragile.control("set_vm_memory_high_watermark", "0.4")

    assert list(patiently(broker, lambda seconds: broker.settle([new], seconds))) == [True]
    names = {each.message_id for each in fetch(broker, wait=10.0)}
    assert "new" in names
    assert names <= {"more", "new"}
