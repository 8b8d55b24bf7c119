"""Waiting on a Redis Cluster: few connections, slots that move, nodes that fail meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import pytest
from redis.crc import key_slot

from upshot import clock
from upshot.backend import StoredRecord
from upshot.client import ResultClient
from upshot.clock import Deadline
from upshot.errors import ServiceClosedError
from upshot.listening import Hint, Listener
from upshot.record import Payload, Record
from upshot.url import Url
from upshot_backends.redis.results import RedisBackend
from upshot_conformance.servers import RedisClusterServer, RedisNode

RecordMaker = Callable[..., StoredRecord]

_PATIENCE = 90.0  # seconds


@pytest.fixture
def cluster(redis_cluster_server: RedisClusterServer) -> RedisClusterServer:
    """Three masters, which every test leaves as they were."""
    return redis_cluster_server


@pytest.fixture
def backend(cluster: RedisClusterServer) -> Iterator[RedisBackend]:
    opened = RedisBackend(Url.parse(cluster.url))
    yield opened
    opened.close()


def open_client(cluster: RedisClusterServer, namespace: str) -> ResultClient:
    url = Url.parse(cluster.url)
    return ResultClient(lambda: RedisBackend(url), url=url, namespace=namespace, timeout=_PATIENCE)


def finished(task_id: str) -> Record:
    return Record(task_id=task_id, state="SUCCESS", outcome=Payload("json", b"1"))


class Waiter:
    """A thread that waits for many ids."""

    def __init__(self, client: ResultClient, ids: Sequence[str]) -> None:
        self.ended: list[str] = []
        self.error: Exception | None = None
        self._client = client
        self._ids = ids
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        try:
            for task_id, found in self._client.wait_many(self._ids, timeout=_PATIENCE):
                assert found == finished(task_id) or isinstance(found, ServiceClosedError)
                self.ended.append(task_id)
        except Exception as exc:  # looked at by the test
            self.error = exc


def channels(cluster: RedisClusterServer, namespace: str) -> dict[str, RedisNode]:
    """Return which channels are subscribed to, and where."""
    found: dict[str, RedisNode] = {}
    for node in cluster.nodes:
        if node.running:
            listed = node.ask("PUBSUB", "SHARDCHANNELS", f"{namespace}*").split("\n")
            found.update((channel, node) for channel in listed if channel)
    return found


def eventually(is_so: Callable[[], bool]) -> None:
    """Wait until something is so; fail when the patience is at its end."""
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


def test_ten_thousand_ids_are_heard_on_one_connection_to_each_node(
    cluster: RedisClusterServer, namespace: str
) -> None:
    ids = [f"task-{number}" for number in range(10_000)]

    def clients() -> int:
        return sum(node.ask("CLIENT", "LIST").count("id=") for node in cluster.nodes)

    before = clients()
    threads = threading.active_count()
    with open_client(cluster, namespace) as client, open_client(cluster, namespace) as worker:
        waiter = Waiter(client, ids)
        eventually(lambda: len(channels(cluster, namespace)) == 10_000)
        assert clients() - before <= 2 * 3  # one for commands and one that listens, to each node
        assert threading.active_count() - threads == 2  # the waiter, and one that listens
        worker.store_many([finished(task_id) for task_id in ids])
        waiter.join()

        assert sorted(waiter.ended) == sorted(ids)
        eventually(lambda: not channels(cluster, namespace))


def test_a_subscription_follows_its_slot(
    cluster: RedisClusterServer, backend: RedisBackend, record: RecordMaker
) -> None:
    moving, staying = record("moving", terminal=True), record("staying", terminal=True)
    slot = key_slot(moving.key.encode())
    source = cluster.master_of(slot)
    target = next(node for node in cluster.nodes if node is not source)
    listener = backend.listen(_PATIENCE)
    listener.subscribe([moving.key, staying.key])
    cluster.move(slot, target)

    assert hear(listener, 1) == [Hint(moving.key)]  # read it: something may have been missed
    backend.store([moving], 10.0)
    assert hear(listener, 1) == [Hint(moving.key, b"body")]
    backend.store([staying], 10.0)
    assert hear(listener, 1) == [Hint(staying.key, b"body")]
    listener.unsubscribe([moving.key, staying.key])
    listener.subscribe([record("other").key])
    eventually(lambda: list(channels(cluster, moving.key.split(":")[0])) == [record("other").key])
    listener.close()
    cluster.move(slot, source)


def test_a_slot_that_moved_before_it_was_subscribed_to_is_found(
    cluster: RedisClusterServer, backend: RedisBackend, record: RecordMaker
) -> None:
    ended = record("a", terminal=True)
    slot = key_slot(ended.key.encode())
    source = cluster.master_of(slot)
    backend.load([ended.key], 10.0)  # learns the map
    cluster.move(slot, next(node for node in cluster.nodes if node is not source))
    listener = backend.listen(_PATIENCE)
    listener.subscribe([ended.key])
    backend.store([ended], 10.0)

    assert hear(listener, 1) == [Hint(ended.key, b"body")]
    listener.close()
    cluster.move(slot, source)


def test_a_slot_that_moved_after_it_was_unsubscribed_from_harms_nothing(
    cluster: RedisClusterServer, backend: RedisBackend, record: RecordMaker
) -> None:
    slot = key_slot(record("a").key.encode())
    source = cluster.master_of(slot)
    listener = backend.listen(_PATIENCE)
    listener.subscribe([record("a").key])
    cluster.move(slot, next(node for node in cluster.nodes if node is not source))
    listener.unsubscribe([record("a").key])  # refused by the node: it has no such slot
    listener.subscribe([record("b").key])
    backend.store([record("b", terminal=True)], 10.0)

    assert [hint for hint in hear(listener, 1) if hint.key != record("a").key] == [
        Hint(record("b").key, b"body")
    ]
    listener.close()
    cluster.move(slot, source)


def test_waits_end_while_their_slots_move(cluster: RedisClusterServer, namespace: str) -> None:
    ids = [f"task-{number}" for number in range(60)]
    with open_client(cluster, namespace) as client, open_client(cluster, namespace) as worker:
        waiter = Waiter(client, ids)
        eventually(lambda: len(channels(cluster, namespace)) == 60)
        slots = {
            slot: cluster.master_of(slot)
            for slot in (key_slot(f"{namespace}:{task_id}".encode()) for task_id in ids[:20])
        }
        storing = threading.Thread(
            target=lambda: [worker.store(finished(task_id)) for task_id in ids]
        )
        storing.start()
        for slot, source in slots.items():
            cluster.move(slot, next(node for node in cluster.nodes if node is not source))
        storing.join()
        waiter.join()
        for slot, source in slots.items():
            cluster.move(slot, source)

    assert sorted(waiter.ended) == sorted(ids)


def test_waits_end_although_listeners_are_killed(
    cluster: RedisClusterServer, namespace: str
) -> None:
    ids = [f"task-{number}" for number in range(60)]
    with open_client(cluster, namespace) as client, open_client(cluster, namespace) as worker:
        waiter = Waiter(client, ids)
        for number, task_id in enumerate(ids):
            if number % 10 == 0:
                cluster.nodes[number // 10 % 3].ask("CLIENT", "KILL", "TYPE", "pubsub")
            worker.store(finished(task_id))
        waiter.join()

    assert sorted(waiter.ended) == sorted(ids)


def test_a_node_that_is_killed_and_restarted_ends_no_wait_early_and_no_wait_late(
    namespace: str,
) -> None:
    ids = [f"task-{number}" for number in range(60)]
    with RedisClusterServer(full_coverage=False) as cluster:
        with open_client(cluster, namespace) as client, open_client(cluster, namespace) as worker:
            waiter = Waiter(client, ids)
            eventually(lambda: len(channels(cluster, namespace)) == 60)
            cluster.nodes[1].kill()
            storing = threading.Thread(
                target=lambda: worker.store_many([finished(task_id) for task_id in ids])
            )
            storing.start()
            cluster.nodes[1].restart()
            storing.join()
            waiter.join()

        assert (sorted(waiter.ended), waiter.error) == (sorted(ids), None)


def test_a_replica_that_takes_over_serves_waits_and_stores(namespace: str) -> None:
    ids = [f"task-{number}" for number in range(60)]
    with RedisClusterServer(replicas=1, node_timeout=2.0) as cluster:
        with open_client(cluster, namespace) as client, open_client(cluster, namespace) as worker:
            waiter = Waiter(client, ids)
            eventually(lambda: len(channels(cluster, namespace)) == 60)
            cluster.nodes[0].kill()
            worker.store_many([finished(task_id) for task_id in ids])
            waiter.join()

        assert (sorted(waiter.ended), waiter.error) == (sorted(ids), None)


def test_closing_ends_a_wait_and_frees_every_connection(
    cluster: RedisClusterServer, namespace: str
) -> None:
    client = open_client(cluster, namespace)
    waiter = Waiter(client, [f"task-{number}" for number in range(30)])
    eventually(lambda: len(channels(cluster, namespace)) == 30)
    client.close()
    waiter.join()

    assert waiter.error is None or isinstance(waiter.error, ServiceClosedError)
    eventually(lambda: not channels(cluster, namespace))
    eventually(
        lambda: all("cmd=ssubscribe" not in node.ask("CLIENT", "LIST") for node in cluster.nodes)
    )
