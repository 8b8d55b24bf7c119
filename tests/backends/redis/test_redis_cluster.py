"""A Redis Cluster: keys on every node, slots that move, nodes that fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest
import redis
from redis.crc import key_slot
from redis.exceptions import TryAgainError

from upshot import clock
from upshot.backend import StoredRecord
from upshot.broker import QueuedMessage
from upshot.client import ResultClient
from upshot.clock import Deadline
from upshot.errors import ServiceUnavailableError, UrlError
from upshot.listening import Hint, Listener
from upshot.record import Payload, Record
from upshot.retrying import translate
from upshot.url import Url
from upshot_backends.redis.broker import RedisBroker
from upshot_backends.redis.driver import DRIVER_ERRORS
from upshot_backends.redis.results import RedisBackend
from upshot_conformance.servers import RedisClusterServer, RedisNode

RecordMaker = Callable[..., StoredRecord]

_PATIENCE = 60.0  # seconds
HOSTILE = ["{", "}", "{}", "}{", "}{a}", "{a}b", "{}{b}", "a{b}c}", "{{x}}", "{x", "x}", "é{ü}"]


@pytest.fixture
def cluster(redis_cluster_server: RedisClusterServer) -> RedisClusterServer:
    """Three masters, which every test leaves as they were."""
    return redis_cluster_server


@pytest.fixture
def fragile_cluster() -> Iterator[RedisClusterServer]:
    """Three masters of the test's own; each goes on when another fails."""
    with RedisClusterServer(full_coverage=False) as started:
        yield started


@pytest.fixture
def backend(cluster: RedisClusterServer) -> Iterator[RedisBackend]:
    opened = RedisBackend(Url.parse(cluster.url))
    yield opened
    opened.close()


@pytest.fixture
def broker(cluster: RedisClusterServer, namespace: str) -> Iterator[RedisBroker]:
    opened = RedisBroker(Url.parse(cluster.url), namespace)
    yield opened
    opened.close()


def slot_of(key: str) -> int:
    return key_slot(key.encode())


def another(cluster: RedisClusterServer, node: RedisNode) -> RedisNode:
    return next(other for other in cluster.nodes if other is not node)


def name_on(cluster: RedisClusterServer, node: RedisNode, record: RecordMaker) -> str:
    """Return a record's name whose key lives on a node."""
    names = (f"on-{number}" for number in range(1000))
    return next(name for name in names if cluster.master_of(slot_of(record(name).key)) is node)


def eventually(is_so: Callable[[], bool]) -> None:
    """Wait until something is so; fail after a minute."""
    deadline = Deadline(_PATIENCE)
    while not is_so():
        assert not deadline.expired
        clock.sleep(0.02)


def hear(listener: Listener, count: int) -> list[Hint]:
    """Collect `count` hints."""
    heard: list[Hint] = []
    deadline = Deadline(_PATIENCE)
    while len(heard) < count and not deadline.expired:
        heard += listener.wait(0.2)
    return heard


# -- keys ---------------------------------------------------------------------------------------


def test_a_batch_is_spread_over_all_nodes_and_answered_in_order(
    cluster: RedisClusterServer, backend: RedisBackend, record: RecordMaker, namespace: str
) -> None:
    records = [record(str(number), b"%d" % number) for number in range(300)]
    keys = [one.key for one in records]
    stored = backend.store([*records, *(record(str(n), rank=1) for n in range(300))], 10.0)

    assert list(stored) == [True] * 300 + [False] * 300
    assert list(backend.load([*keys, f"{namespace}:none"], 10.0)) == [
        *(one.body for one in records),
        None,
    ]
    assert all(int(node.ask("DBSIZE")) >= 50 for node in cluster.nodes)
    assert sorted(backend.scan(f"{namespace}:", 10.0)) == sorted(keys)
    backend.delete(keys, 10.0)
    assert list(backend.scan(f"{namespace}:", 10.0)) == []


@pytest.mark.parametrize("name", HOSTILE)
def test_a_key_with_braces_shares_its_slot_with_its_channel(
    backend: RedisBackend, record: RecordMaker, name: str
) -> None:
    ended = record(name, b"end", terminal=True)
    listener = backend.listen(10.0)
    listener.subscribe([ended.key])

    assert backend.store([ended], 10.0) == [True]
    assert hear(listener, 1) == [Hint(ended.key, b"end")]
    backend.delete([ended.key], 10.0)
    assert hear(listener, 1) == [Hint(ended.key, b"")]
    listener.close()


def test_hostile_ids_are_waited_for_together(cluster: RedisClusterServer, namespace: str) -> None:
    url = Url.parse(cluster.url)
    with ResultClient(lambda: RedisBackend(url), url=url, namespace=namespace) as client:
        records = [
            Record(task_id=name, state="SUCCESS", outcome=Payload("json", b"1")) for name in HOSTILE
        ]
        client.store_many(records)

        assert dict(client.wait_many(HOSTILE, timeout=_PATIENCE)) == {
            each.task_id: each for each in records
        }
        client.forget(HOSTILE)
        assert client.load_many(HOSTILE) == [None] * len(HOSTILE)


def test_all_queues_of_a_namespace_share_one_slot(
    cluster: RedisClusterServer, namespace: str
) -> None:
    for hostile in (namespace, f"{namespace}{{x}}y", f"{namespace}}}"):
        broker = RedisBroker(Url.parse(cluster.url), hostile)
        broker.publish(
            [QueuedMessage(message_id=queue, queue=queue, body=b"") for queue in ("q", "{r}", "}")],
            [],
            10.0,
        )
        found = broker.fetch(["q", "{r}", "}"], limit=9, wait=0.0, lease=60.0, worker="w")

        assert sorted(delivery.message_id for delivery in found) == ["q", "{r}", "}"]
        broker.close()
    keys = [key for node in cluster.nodes for key in node.ask("KEYS", "{test-*").split("\n") if key]
    assert len({slot_of(key) for key in keys if namespace in key}) == 3


def test_a_broker_on_a_cluster_joins_no_backend(
    backend: RedisBackend, broker: RedisBroker, cluster: RedisClusterServer
) -> None:
    single = Url.parse(f"redis://127.0.0.1:{cluster.nodes[0].port}/0")
    lonely = RedisBackend(Url.parse(f"redis+cluster://127.0.0.1:{cluster.nodes[0].port}/0"))

    assert not broker.joins(backend)
    assert not RedisBroker(single, "ns").joins(lonely)
    assert not broker.joins(RedisBackend(single))


def test_one_host_of_the_url_is_enough(cluster: RedisClusterServer, record: RecordMaker) -> None:
    dead = "127.0.0.1:1"
    for scheme in ("redis+cluster", "valkey+cluster"):
        url = Url.parse(f"{scheme}://{dead},127.0.0.1:{cluster.nodes[2].port}?protocol=3")
        backend = RedisBackend(url)
        records = [record(str(number), rank=30) for number in range(20)]

        assert list(backend.store(records, 10.0)) == [True] * 20
        backend.close()


def test_a_cluster_that_cannot_be_reached_fails_for_now() -> None:
    url = Url.parse("redis+cluster://127.0.0.1:1,127.0.0.1:2")
    backend = RedisBackend(url)

    with pytest.raises(redis.ConnectionError) as refused:
        backend.load(["a"], 5.0)
    assert isinstance(translate(refused.value, DRIVER_ERRORS, url), ServiceUnavailableError)
    backend.close()


@pytest.mark.parametrize(
    "text",
    [
        "redis://localhost,127.0.0.1",
        "redis+cluster://localhost/1",
        "redis+cluster://localhost?db=2",
        "redis+cluster://localhost/?upshot_lease=3",
        "redis+cluster://localhost/?nonsense=3",
        "redis+sentinel://localhost",
        "redis+sentinel://localhost/",
        "redis+sentinel://localhost/name/one",
        "redis+sentinel://localhost/name/0/0",
        "redis+sentinel://localhost/name?upshot_sentinel_pasword=x",
        "redis+sentinel://localhost/name?nonsense=3",
        "redis+nonsense://localhost",
        "rediss+unix:///socket",
    ],
)
def test_a_url_that_cannot_work_is_refused_without_connecting(text: str) -> None:
    url = Url.parse(text)

    with pytest.raises(UrlError):
        RedisBackend(url)
    with pytest.raises(UrlError):
        RedisBroker(url, "ns")


def test_a_node_is_not_taken_for_a_single_server(
    cluster: RedisClusterServer, record: RecordMaker
) -> None:
    name = name_on(cluster, cluster.nodes[1], record)
    backend = RedisBackend(Url.parse(f"redis://127.0.0.1:{cluster.nodes[0].port}"))

    with pytest.raises(redis.ResponseError, match=r"redis\+cluster://"):
        backend.store([record(name)], 10.0)
    backend.close()


# -- slots that move ------------------------------------------------------------------------------


def test_a_slot_that_has_moved_is_followed(
    cluster: RedisClusterServer, backend: RedisBackend, record: RecordMaker
) -> None:
    records = [record(str(number)) for number in range(30)]
    backend.store(records, 10.0)
    slots = {slot_of(one.key): cluster.master_of(slot_of(one.key)) for one in records}
    for slot, source in slots.items():
        cluster.move(slot, another(cluster, source))

    assert list(backend.load([one.key for one in records], 10.0)) == [b"body"] * 30
    assert list(backend.store([record(str(n), b"new") for n in range(30)], 10.0)) == [True] * 30
    for slot, source in slots.items():
        cluster.move(slot, source)
    assert list(backend.load([one.key for one in records], 10.0)) == [b"new"] * 30


def test_a_slot_that_is_moving_is_asked_for_at_both_ends(
    cluster: RedisClusterServer, backend: RedisBackend, record: RecordMaker
) -> None:
    here, there = record("{x}here"), record("{x}there")
    slot = slot_of(here.key)
    source = cluster.master_of(slot)
    target = another(cluster, source)
    backend.store([here], 10.0)
    cluster.open_slot(slot, target)
    target.ask("SCRIPT", "FLUSH")

    # The second does not exist at the source, so that it is made at the target.
    batch = [record("{x}here", b"1"), there, record("{x}there", b"2", terminal=True), record("y")]
    assert list(backend.store([*batch, record("{x}there", b"late")], 10.0)) == [True] * 4 + [False]
    assert list(backend.load([here.key, there.key], 10.0)) == [b"1", b"2"]
    backend.delete([there.key], 10.0)
    assert list(backend.load([here.key, there.key], 10.0)) == [b"1", None]
    cluster.move(slot, target)
    assert list(backend.load([here.key], 10.0)) == [b"1"]
    cluster.move(slot, source)


def test_nothing_is_published_into_half_a_queue(
    cluster: RedisClusterServer, broker: RedisBroker, namespace: str
) -> None:
    def publish(name: str) -> None:
        broker.publish([QueuedMessage(message_id=name, queue="q", body=b"")], [], 10.0)

    def fetched() -> Sequence[str]:
        found = broker.fetch(["q"], limit=9, wait=0.0, lease=60.0, worker="w")
        return [delivery.message_id for delivery in found]

    slot = slot_of(f"{{{namespace}}}")
    source = cluster.master_of(slot)
    target = another(cluster, source)
    publish("before")
    cluster.open_slot(slot, target)

    for operation in (
        lambda: publish("during"),
        fetched,
        lambda: broker.purge(["q"], 10.0),
        lambda: broker.survey(["q"], 10.0),
    ):
        with pytest.raises(TryAgainError) as refused:
            operation()
        url = Url.parse(cluster.url)
        assert isinstance(translate(refused.value, DRIVER_ERRORS, url), ServiceUnavailableError)
    assert target.ask("KEYS", f"{{{namespace}}}*") == ""
    cluster.move(slot, target)
    publish("after")
    assert fetched() == ["before", "after"]
    cluster.move(slot, source)


def test_a_waiting_fetch_follows_its_queue(
    cluster: RedisClusterServer, broker: RedisBroker, namespace: str
) -> None:
    slot = slot_of(f"{{{namespace}}}")
    source = cluster.master_of(slot)
    assert broker.fetch(["q"], limit=1, wait=0.05, lease=60.0, worker="w") == []  # its pop is there
    cluster.move(slot, another(cluster, source))
    publisher = RedisBroker(Url.parse(cluster.url), namespace)
    publisher.publish([QueuedMessage(message_id="m", queue="q", body=b"")], [], 10.0)

    found = broker.fetch(["q"], limit=1, wait=_PATIENCE, lease=60.0, worker="w")
    assert [delivery.message_id for delivery in found] == ["m"]
    assert broker.fetch(["q"], limit=1, wait=0.05, lease=60.0, worker="w") == []
    publisher.publish([QueuedMessage(message_id="n", queue="q", body=b"")], [], 10.0)
    assert broker.fetch(["q"], limit=1, wait=_PATIENCE, lease=60.0, worker="w")
    publisher.close()
    cluster.move(slot, source)


# -- nodes that fail ------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["kill", "pause"])
def test_a_node_that_fails_takes_only_its_own_keys_with_it(
    fragile_cluster: RedisClusterServer, record: RecordMaker, fault: str
) -> None:
    cluster = fragile_cluster
    url = Url.parse(cluster.url)
    backend = RedisBackend(url)
    names = [name_on(cluster, node, record) for node in cluster.nodes]
    lost, *others = [record(name).key for name in names]
    backend.store([record(name) for name in names], 10.0)
    victim = cluster.nodes[0]
    victim.kill() if fault == "kill" else victim.pause()

    for body in (b"1", b"2", b"3"):
        with pytest.raises((redis.ConnectionError, redis.TimeoutError)) as refused:
            backend.load([lost], 0.5)
        assert isinstance(translate(refused.value, DRIVER_ERRORS, url), ServiceUnavailableError)
        assert list(backend.store([record(name, body) for name in names[1:]], 10.0)) == [True] * 2
        assert list(backend.load(others, 10.0)) == [body, body]
        with pytest.raises((redis.ConnectionError, redis.TimeoutError)):
            backend.load([lost, *others], 0.5)
    stranger = RedisBackend(url)  # who has to learn the map now
    assert list(stranger.load(others, 20.0)) == [b"3", b"3"]
    stranger.close()
    victim.restart() if fault == "kill" else victim.resume()

    def stored() -> bool:
        try:
            return list(backend.store([record(names[0], b"again", rank=25)], 5.0)) == [True]
        except redis.RedisError:
            return False

    eventually(stored)
    assert list(backend.load([lost, *others], 10.0)) == [b"again", b"3", b"3"]
    backend.close()


def test_a_cluster_that_is_down_fails_for_now(record: RecordMaker) -> None:
    with RedisClusterServer() as cluster:
        url = Url.parse(cluster.url)
        backend = RedisBackend(url)
        name = name_on(cluster, cluster.nodes[1], record)
        backend.store([record(name)], 10.0)
        slot = slot_of(record(name).key)
        for node in cluster.nodes:
            node.ask("CLUSTER", "DELSLOTS", slot)
        eventually(lambda: "cluster_state:fail" in cluster.nodes[1].ask("CLUSTER", "INFO"))

        with pytest.raises(redis.RedisError) as refused:
            backend.load([record(name).key], 5.0)
        assert isinstance(translate(refused.value, DRIVER_ERRORS, url), ServiceUnavailableError)
        backend.close()
