"""One Redis server that dies, freezes or pushes in the midst of things."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from upshot import clock
from upshot.client import ResultClient
from upshot.clock import Deadline
from upshot.record import Payload, Record
from upshot.url import Url
from upshot_backends.redis.connection import open_client
from upshot_backends.redis.results import RedisBackend
from upshot_conformance.servers import RedisServer

_PATIENCE = 90.0  # seconds


@pytest.fixture
def client(fragile: RedisServer, namespace: str) -> Iterator[ResultClient]:
    url = Url.parse(fragile.url)
    make: Callable[[], RedisBackend] = lambda: RedisBackend(url)  # noqa: E731 - as an app would
    with ResultClient(make, url=url, namespace=namespace, timeout=_PATIENCE) as opened:
        yield opened


def finished(task_id: str) -> Record:
    return Record(task_id=task_id, state="SUCCESS", outcome=Payload("json", b"1"))


def eventually(is_so: Callable[[], bool]) -> None:
    """Wait until something is so; fail when the patience is at its end."""
    deadline = Deadline(_PATIENCE)
    while not is_so():
        assert not deadline.expired
        clock.sleep(0.02)


@pytest.mark.parametrize("fault", ["kill", "pause"])
def test_a_hundred_waits_outlive_their_server(
    fragile: RedisServer, client: ResultClient, namespace: str, fault: str
) -> None:
    ids = [f"task-{number}" for number in range(100)]
    with ThreadPoolExecutor(100) as pool:
        waits = [pool.submit(client.wait, task_id, timeout=_PATIENCE) for task_id in ids]
        eventually(
            lambda: fragile.ask("PUBSUB", "CHANNELS", f"{namespace}*").count(namespace) == 100
        )
        if fault == "kill":
            fragile.kill()
        else:
            fragile.pause()
        storing = threading.Thread(
            target=lambda: client.store_many([finished(task_id) for task_id in ids])
        )
        storing.start()  # while nobody answers
        if fault == "kill":
            fragile.restart()
        else:
            fragile.resume()
        storing.join()

        assert [wait.result() for wait in waits] == [finished(task_id) for task_id in ids]
    assert client.stats()["keys"] == 0


def test_pushes_are_not_mistaken_for_answers(server: RedisServer, raw: Any, namespace: str) -> None:
    client = open_client(Url.parse(f"{server.url}?protocol=3"))
    key = f"{namespace}:a"
    # From now on the one idle connection is told of every write to such keys.
    client.server(key, 10.0).call(
        "CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", namespace, timeout=10.0
    )
    assert raw.info("clients")["tracking_clients"] == 1
    for number in range(50):
        raw.mset({key: number, f"{key}{number}": "x"})

        assert client.ask([("GET", key), ("EXISTS", key)], 10.0) == [b"%d" % number, 1]
    client.close()
