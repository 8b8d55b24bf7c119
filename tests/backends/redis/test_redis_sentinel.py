"""A master behind sentinels: found, followed through fail-overs, and left once it is none."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from upshot import clock
from upshot.backend import StoredRecord
from upshot.broker import QueuedMessage
from upshot.client import ResultClient
from upshot.clock import Deadline
from upshot.errors import ServiceRejectedError, ServiceUnavailableError
from upshot.record import Payload, Record
from upshot.retrying import call, translate
from upshot.service import OpenService
from upshot.url import Url
from upshot_backends.redis.broker import RedisBroker
from upshot_backends.redis.driver import DRIVER_ERRORS
from upshot_backends.redis.results import RedisBackend
from upshot_conformance.servers import RedisSentinelServer, RedisServer
from upshot_conformance.servers.ports import PortReservation

RecordMaker = Callable[..., StoredRecord]

_PATIENCE = 90.0  # seconds; a starved sentinel may rest for 30 of them ("tilt")
_PASSWORD = "s3cret-w0rd"


@pytest.fixture
def failing() -> Iterator[RedisSentinelServer]:
    """A service of the test's own, which fails over soon after its master is gone."""
    with RedisSentinelServer(down_after=0.5) as service:
        yield service


@pytest.fixture
def obedient() -> Iterator[RedisSentinelServer]:
    """A service of the test's own, with one sentinel, which fails over only when told to."""
    with RedisSentinelServer(sentinels=1) as service:
        yield service


@pytest.fixture
def nowhere() -> Iterator[int]:
    """A port where nothing listens."""
    reserved = PortReservation()
    yield reserved.number
    reserved.close()


def finished(task_id: str) -> Record:
    return Record(task_id=task_id, state="SUCCESS", outcome=Payload("json", b"1"))


def open_client(service: RedisSentinelServer, namespace: str) -> ResultClient:
    url = Url.parse(service.url)
    make = lambda: RedisBackend(url)  # noqa: E731 - as an app would
    return ResultClient(make, url=url, namespace=namespace, timeout=_PATIENCE)


def eventually(is_so: Callable[[], bool]) -> None:
    """Wait until something is so; fail when the patience is at its end."""
    deadline = Deadline(_PATIENCE)
    while not is_so():
        assert not deadline.expired
        clock.sleep(0.02)


def hand_over(service: RedisSentinelServer, nowhere: int) -> None:
    """Make the replica master, and the master a replica that nobody tells anything.

    It keeps its connections, answers reads with what it has, and hears of no new results.
    """
    first, second = service.data_servers
    second.ask("REPLICAOF", "NO", "ONE")
    for sentinel in service.sentinels:
        sentinel.ask("SENTINEL", "REMOVE", service.service)
        sentinel.ask("SENTINEL", "MONITOR", service.service, "127.0.0.1", second.port, 1)
    first.ask("REPLICAOF", "127.0.0.1", nowhere)


# -- finding the master ------------------------------------------------------------------------


def test_results_and_messages_go_to_the_master_and_the_database_of_the_url(
    redis_sentinel_server: RedisSentinelServer, record: RecordMaker, namespace: str
) -> None:
    url = Url.parse(redis_sentinel_server.url.removesuffix("/0") + "/3")
    backend, broker = RedisBackend(url), RedisBroker(url, namespace)
    broker.publish([QueuedMessage(message_id="m", queue="q", body=b"")], [record("a")], 5.0)

    assert broker.joins(backend)
    assert backend.load([record("a").key], 5.0) == [b"body"]
    with redis.Redis(port=redis_sentinel_server.master.port, db=3) as raw:
        assert raw.exists(record("a").key)
        assert raw.exists(f"{namespace}/q/messages")
    backend.close()
    broker.close()


@pytest.mark.parametrize("form", ["path", "parameter", "list"])
def test_the_service_may_be_written_as_kombu_does(
    redis_sentinel_server: RedisSentinelServer, form: str
) -> None:
    hosts = [f"127.0.0.1:{sentinel.port}" for sentinel in redis_sentinel_server.sentinels]
    text = {
        "path": f"redis+sentinel://{hosts[0]},{hosts[1]}/upshot",
        "parameter": f"valkey+sentinel://{hosts[0]}?master_name=upshot&db=0",
        "list": f"sentinel://{hosts[0]}/0?master_name=upshot;sentinel://{hosts[1]}/0",
    }[form]
    backend = RedisBackend(Url.parse(text))

    assert backend.load(["a"], 5.0) == [None]
    backend.close()


def test_sentinels_that_are_dead_or_frozen_are_passed_over(namespace: str) -> None:
    with RedisSentinelServer() as service:
        service.sentinels[0].kill()
        service.sentinels[1].pause()
        backend = RedisBackend(Url.parse(service.url))

        assert backend.load(["a"], 20.0) == [None]
        backend.close()
        service.sentinels[1].resume()


def test_passwords_of_servers_and_sentinels_are_told_apart(record: RecordMaker) -> None:
    with RedisSentinelServer(sentinels=1, password=_PASSWORD, sentinel_password="other") as service:
        address = service.url.removeprefix("redis+sentinel://")
        right = Url.parse(f"redis+sentinel://:{_PASSWORD}@{address}?upshot_sentinel_password=other")
        backend = RedisBackend(right)

        assert backend.store([record("a")], 5.0) == [True]
        backend.close()
        for text in (
            f"redis+sentinel://:{_PASSWORD}@{address}",
            f"redis+sentinel://:{_PASSWORD}@{address}?upshot_sentinel_password=wrong-{_PASSWORD}",
            f"redis+sentinel://:wrong-{_PASSWORD}@{address}?upshot_sentinel_password=other",
            f"redis+sentinel://{address}?upshot_sentinel_password=other",
        ):
            assert _PASSWORD not in refusal(Url.parse(text))


def refusal(url: Url) -> str:
    """Return all that is shown of why a URL is refused for good."""
    backend = RedisBackend(url)
    with pytest.raises(ServiceRejectedError) as refused:
        call(
            lambda seconds: backend.load(["a"], seconds),
            errors=DRIVER_ERRORS,
            url=url,
            deadline=Deadline(20.0),
            limit=20.0,
        )
    backend.close()
    return f"{refused.value} {refused.value!r} {refused.value.__cause__!r} {url} {backend!r}"


def test_a_service_that_the_sentinels_do_not_know_is_refused(
    redis_sentinel_server: RedisSentinelServer,
) -> None:
    url = Url.parse(redis_sentinel_server.url.replace("/upshot/", "/upshto/"))

    assert "upshto" in refusal(url)


def test_no_connection_to_a_sentinel_is_kept(redis_sentinel_server: RedisSentinelServer) -> None:
    def clients() -> int:
        lists = [sentinel.ask("CLIENT", "LIST") for sentinel in redis_sentinel_server.sentinels]
        names = [line for text in lists for line in text.splitlines() if "sentinel-" not in line]
        return len(names)

    before = clients()
    backend = RedisBackend(Url.parse(redis_sentinel_server.url))
    backend.load(["a"], 5.0)

    eventually(lambda: clients() <= before)
    backend.close()


# -- a master that is one no more ---------------------------------------------------------------


def test_what_a_demoted_master_refuses_goes_to_the_new_one(
    obedient: RedisSentinelServer, record: RecordMaker, nowhere: int
) -> None:
    url = Url.parse(obedient.url)
    backend = RedisBackend(url)
    assert backend.store([record("before")], 5.0) == [True]
    hand_over(obedient, nowhere)

    with pytest.raises(redis.ResponseError) as refused:  # READONLY, or what its ROLE says
        backend.store([record("after")], 5.0)
    assert isinstance(translate(refused.value, DRIVER_ERRORS, url), ServiceUnavailableError)
    assert backend.store([record("after")], 20.0) == [True]
    assert obedient.data_servers[1].ask("EXISTS", record("after").key) == "1"
    backend.close()


def test_what_a_demoted_master_still_knows_is_not_read(
    obedient: RedisSentinelServer, record: RecordMaker, nowhere: int
) -> None:
    backend = RedisBackend(Url.parse(obedient.url))
    backend.load([record("a").key], 5.0)
    hand_over(obedient, nowhere)
    other = RedisBackend(Url.parse(obedient.url))
    assert other.store([record("a", b"new")], 20.0) == [True]

    def load() -> bytes | None:
        try:
            return backend.load([record("a").key], 20.0)[0]
        except redis.RedisError:
            return None

    eventually(lambda: load() == b"new")  # after a second at the latest, plus the machine's load
    backend.close()
    other.close()


def test_a_listener_does_not_stay_with_a_demoted_master(
    obedient: RedisSentinelServer, namespace: str, nowhere: int
) -> None:
    ended: list[str] = []
    with open_client(obedient, namespace) as client:
        waiting = threading.Thread(
            target=lambda: ended.extend(
                task_id for task_id, _ in client.wait_many(["a", "b"], timeout=_PATIENCE)
            )
        )
        waiting.start()
        eventually(lambda: len(channels(obedient.data_servers[0], namespace)) == 2)
        hand_over(obedient, nowhere)
        with open_client(obedient, namespace) as other:
            other.store(finished("a"))
            eventually(lambda: channels(obedient.data_servers[1], namespace) != [])
            other.store(finished("b"))
        waiting.join()

    assert sorted(ended) == ["a", "b"]


def channels(server: RedisServer, namespace: str) -> list[str]:
    return [line for line in server.ask("PUBSUB", "CHANNELS", f"{namespace}*").split("\n") if line]


def test_a_bell_does_not_stay_with_a_demoted_master(
    obedient: RedisSentinelServer, namespace: str, nowhere: int
) -> None:
    url = Url.parse(obedient.url)
    service = OpenService(lambda: RedisBroker(url, namespace), url=url, timeout=_PATIENCE)
    got: list[str] = []

    def work() -> None:
        deadline = Deadline(_PATIENCE)
        while not got and not deadline.expired:
            found = service.call(
                lambda broker, _: broker.fetch(["q"], limit=1, wait=2.0, lease=60.0, worker="w")
            )
            got.extend(delivery.message_id for delivery in found)

    thread = threading.Thread(target=work)
    thread.start()
    eventually(lambda: "blocked_clients:1" in obedient.data_servers[0].ask("INFO", "clients"))
    hand_over(obedient, nowhere)
    publisher = RedisBroker(url, namespace)
    publisher.publish([QueuedMessage(message_id="m", queue="q", body=b"")], [], 20.0)
    thread.join()

    assert got == ["m"]
    publisher.close()
    service.close()


def test_a_fail_over_that_an_operator_asks_for_is_followed(
    obedient: RedisSentinelServer, namespace: str
) -> None:
    first, second = obedient.data_servers
    with open_client(obedient, namespace) as client:
        assert client.store(finished("before"))
        obedient.sentinels[0].ask("SENTINEL", "FAILOVER", obedient.service)
        eventually(lambda: obedient.master is second)
        eventually(lambda: obedient.has_role(first, "slave"))

        assert client.store(finished("after"))
        assert client.load("after") == finished("after")
        assert second.ask("EXISTS", f"{namespace}:after") == "1"


def test_waits_and_stores_survive_a_master_that_is_killed(
    failing: RedisSentinelServer, namespace: str
) -> None:
    ids = [f"task-{number}" for number in range(60)]
    ended: list[str] = []
    with open_client(failing, namespace) as waiter, open_client(failing, namespace) as worker:
        waiting = threading.Thread(
            target=lambda: ended.extend(
                task_id for task_id, _ in waiter.wait_many(ids, timeout=_PATIENCE)
            )
        )
        waiting.start()
        for number, task_id in enumerate(ids):
            if number == 20:
                failing.data_servers[0].kill()
            worker.store(finished(task_id))
        # What the dead master had not passed on is lost; whoever is sure to have stored it may
        # store it again.
        worker.store_many([finished(task_id) for task_id in ids])
        waiting.join()

        assert sorted(ended) == sorted(ids)
        assert failing.master is failing.data_servers[1]
        assert worker.load_many(ids) == [finished(task_id) for task_id in ids]


# -- one server that is demoted -------------------------------------------------------------------


@pytest.mark.parametrize("stale", ["yes", "no"])
def test_a_single_server_that_is_a_replica_for_a_while_loses_its_connections(
    fragile: RedisServer, record: RecordMaker, nowhere: int, stale: str
) -> None:
    url = Url.parse(fragile.url)
    backend = RedisBackend(url)
    assert backend.store([record("a")], 5.0) == [True]
    fragile.ask("CONFIG", "SET", "replica-serve-stale-data", stale)
    fragile.ask("REPLICAOF", "127.0.0.1", nowhere)

    with pytest.raises(redis.ResponseError, match=r"replica|MASTER") as refused:
        backend.store([record("a")], 5.0)
    assert isinstance(translate(refused.value, DRIVER_ERRORS, url), ServiceUnavailableError)
    eventually(lambda: fragile.ask("CLIENT", "LIST").count("id=") == 1)  # `ask` itself
    fragile.ask("REPLICAOF", "NO", "ONE")
    assert backend.store([record("a")], 5.0) == [True]
    backend.close()


def test_a_fetch_whose_server_becomes_a_replica_fails_for_now(
    fragile: RedisServer, namespace: str, nowhere: int
) -> None:
    url = Url.parse(fragile.url)
    broker = RedisBroker(url, namespace)
    failures: list[Any] = []

    def fetch() -> None:
        try:
            broker.fetch(["q"], limit=1, wait=_PATIENCE, lease=5.0, worker="w")
        except redis.RedisError as exc:
            failures.append(exc)

    thread = threading.Thread(target=fetch)
    thread.start()
    eventually(lambda: "blocked_clients:1" in fragile.ask("INFO", "clients"))
    fragile.ask("REPLICAOF", "127.0.0.1", nowhere)
    thread.join()

    assert [type(translate(exc, DRIVER_ERRORS, url)) for exc in failures] == [
        ServiceUnavailableError
    ]
    fragile.ask("REPLICAOF", "NO", "ONE")
    broker.publish([QueuedMessage(message_id="m", queue="q", body=b"")], [], 5.0)
    assert len(broker.fetch(["q"], limit=1, wait=0.0, lease=5.0, worker="w")) == 1
    broker.close()
