"""Waiting for messages on Redis: woken at once, in time, with few commands."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import redis

from upshot import clock
from upshot.broker import Delivery, QueuedMessage, Settlement
from upshot.clock import Deadline
from upshot.url import Url
from upshot_backends.redis.bell import Bell
from upshot_backends.redis.broker import RedisBroker
from upshot_backends.redis.connection import open_client
from upshot_conformance.servers import RedisServer


def _message(name: str, *, eta: float | None = None) -> QueuedMessage:
    return QueuedMessage(message_id=name, queue="q", body=b"", eta=eta)


def _fetch(broker: RedisBroker, *, limit: int = 1, wait: float = 0.0) -> list[Delivery]:
    return list(broker.fetch(["q"], limit=limit, wait=wait, lease=30.0, worker="w"))


def test_a_published_message_wakes_a_waiting_fetch_at_once(
    server: RedisServer, broker: RedisBroker, namespace: str
) -> None:
    publisher = RedisBroker(Url.parse(server.url), namespace)
    publisher.survey(["q"], 30.0)
    lateness: list[float] = []
    for number in range(20):
        sent: list[float] = []

        def publish(name: str = str(number), sent: list[float] = sent) -> None:
            sent.append(clock.monotonic())
            publisher.publish([_message(name)], [], 30.0)

        timer = threading.Timer(0.02, publish)
        timer.start()
        (delivery,) = _fetch(broker, wait=60.0)
        lateness.append(clock.monotonic() - sent[0])
        timer.join()
        broker.settle([Settlement(delivery=delivery)], 30.0)

    assert max(lateness) < 30.0
    publisher.close()


def test_a_burst_wakes_every_waiting_fetch(
    driver: Callable[[str], Any], server: RedisServer, namespace: str
) -> None:
    url = Url.parse(server.url)
    brokers = [RedisBroker(url, namespace) for _ in range(6)]
    woken: list[float] = []

    def fetch(number: int) -> None:
        if _fetch(brokers[number], wait=100.0):
            woken.append(clock.monotonic())

    threads = [threading.Thread(target=fetch, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    with driver(server.url) as admin:
        deadline = Deadline(30.0)
        while admin.info("clients")["blocked_clients"] < 5 and not deadline.expired:
            clock.sleep(0.01)
        began = clock.monotonic()
        brokers[5].publish([_message(str(i)) for i in range(5)], [], 30.0)
    for thread in threads:
        thread.join()

    assert len(woken) == 5
    assert max(woken) - began < 30.0
    for opened in brokers:
        opened.close()


def test_an_idle_server_delivers_at_the_eta(broker: RedisBroker) -> None:
    lateness: list[float] = []
    for number in range(6):
        eta = clock.now() + 0.13
        broker.publish([_message(str(number), eta=eta)], [], 30.0)
        (delivery,) = _fetch(broker, wait=30.0)
        lateness.append(clock.now() - eta)
        broker.settle([Settlement(delivery=delivery)], 30.0)

    assert min(lateness) >= -0.001
    assert max(lateness) < 5.0  # and not when the pop ends, or the wait


def test_a_fetch_waits_as_long_as_it_is_told(broker: RedisBroker) -> None:
    for wait in (0.0, 0.03, 0.25):
        began = clock.monotonic()

        assert _fetch(broker, wait=wait) == []
        assert wait <= clock.monotonic() - began < wait + 5.0


def test_an_idle_fetcher_looks_every_other_wait(
    driver: Callable[[str], Any], fragile: RedisServer
) -> None:
    broker = RedisBroker(Url.parse(fragile.url), "ns")
    broker.publish([_message(str(i)) for i in range(100)], [], 30.0)  # rings 64 times
    assert len(_fetch(broker, limit=100)) == 100
    with driver(fragile.url) as admin:
        admin.config_resetstat()
        for _ in range(4):
            _fetch(broker, wait=0.5)
        counted = admin.info("commandstats")
    sent = counted["cmdstat_evalsha"]["calls"] + counted["cmdstat_blpop"]["calls"]

    assert sent <= 3  # in two seconds: two looks, one blocking pop
    broker.close()


def test_a_wait_that_does_not_look_first_hears_the_bell(
    server: RedisServer, broker: RedisBroker, namespace: str
) -> None:
    publisher = RedisBroker(Url.parse(server.url), namespace)
    assert _fetch(broker, wait=0.5) == []  # has looked, and leaves its pop with the server
    publisher.publish([_message("m")], [], 30.0)
    began = clock.monotonic()

    assert [each.message_id for each in _fetch(broker, wait=1.5)] == ["m"]
    assert clock.monotonic() - began < 1.0
    publisher.close()


def test_a_ring_that_nobody_acts_on_delays_a_message_by_one_wait(
    server: RedisServer, broker: RedisBroker, namespace: str
) -> None:
    client = open_client(Url.parse(server.url))
    dead = Bell(client, [f"{namespace}/q/bell"])
    dead.wait(0.02)  # is the first in line from now on
    publisher = RedisBroker(Url.parse(server.url), namespace)
    assert _fetch(broker, wait=0.5) == []
    publisher.publish([_message("m")], [], 30.0)

    assert _fetch(broker, wait=0.5) == []  # only listens
    assert [each.message_id for each in _fetch(broker, wait=0.5)] == ["m"]
    for each in (dead, client, publisher):
        each.close()


def test_a_fetch_that_found_something_takes_nobody_elses_wake_up(
    broker: RedisBroker, namespace: str, raw: Any
) -> None:
    broker.publish([_message("m0")], [], 30.0)
    assert broker.fetch(["q"], limit=1, wait=0.0, lease=0.2, worker="w")
    _fetch(broker, wait=0.05)  # leaves its blocking pop with the server
    deadline = Deadline(30.0)
    while not broker.survey(["q"], 30.0)["q"].ready and not deadline.expired:
        clock.sleep(0.01)
    assert _fetch(broker)  # takes the lost message, for which nobody rang
    broker.publish([_message("m1")], [], 30.0)

    assert raw.llen(f"{namespace}/q/bell") == 1


def test_a_bell_is_reopened_after_its_connection_was_killed(broker: RedisBroker, raw: Any) -> None:
    _fetch(broker, wait=0.05)
    raw.client_kill_filter(_type="normal", skipme=True)
    with pytest.raises(redis.ConnectionError):
        _fetch(broker, wait=30.0)
    broker.publish([_message("m")], [], 30.0)

    assert [delivery.message_id for delivery in _fetch(broker, wait=30.0)] == ["m"]


def test_a_frozen_server_ends_a_wait_for_the_bell(fragile: RedisServer) -> None:
    broker = RedisBroker(Url.parse(fragile.url), "ns")
    _fetch(broker, wait=0.05)
    fragile.pause()
    began = clock.monotonic()

    with pytest.raises(redis.TimeoutError):
        _fetch(broker, wait=0.1)
    assert clock.monotonic() - began < 0.1 + 5.0 + 5.0  # a look ends after five seconds
    fragile.resume()
    broker.close()


def test_a_ring_that_came_too_late_is_passed_on(
    server: RedisServer, raw: Any, namespace: str, broker: RedisBroker
) -> None:
    bell_key = f"{namespace}/q/bell"
    client = open_client(Url.parse(server.url))
    bell = Bell(client, [bell_key])
    bell.wait(0.02)
    broker.publish([_message("m")], [], 30.0)
    assert raw.llen(bell_key) == 0
    bell.hush()

    assert raw.llen(bell_key) == 1
    assert 0 < raw.ttl(bell_key) <= 60
    bell.close()
    client.close()


def test_a_bell_is_hushed_where_unblocking_is_not_allowed(
    driver: Callable[[str], Any], fragile: RedisServer
) -> None:
    with driver(fragile.url) as admin:
        rights = ["+@all", "-client|unblock"]
        admin.acl_setuser("worker", enabled=True, nopass=True, keys=["*"], commands=rights)
        client = open_client(Url.parse(fragile.url.replace("redis://", "redis://worker:any@")))
        bell = Bell(client, ["ns/q/bell"])
        bell.wait(0.02)
        assert admin.info("clients")["blocked_clients"] == 1
        bell.hush()
        deadline = Deadline(30.0)
        while admin.info("clients")["blocked_clients"] and not deadline.expired:
            clock.sleep(0.005)

        assert admin.info("clients")["blocked_clients"] == 0
    client.close()


def test_a_bell_waits_out_its_time_and_hears_one_ring(
    server: RedisServer, raw: Any, namespace: str, broker: RedisBroker
) -> None:
    broker.publish([_message("m")], [], 30.0)
    bell_key = f"{namespace}/q/bell"
    client = open_client(Url.parse(server.url))
    bell = Bell(client, [bell_key])
    began = clock.monotonic()
    bell.wait(9.0)

    assert clock.monotonic() - began < 8.0
    assert raw.llen(bell_key) == 0
    bell.wait(0.2)
    assert clock.monotonic() - began >= 0.2
    bell.close()
    client.close()
