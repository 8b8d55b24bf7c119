"""The connections to memcached: how many, shared by threads, closed, and after a fork."""

from __future__ import annotations

import os
import threading
import traceback
import warnings
from collections.abc import Callable

import pytest

from upshot import clock
from upshot.backend import StoredRecord
from upshot.client import ResultClient
from upshot.clock import Deadline
from upshot.record import Payload, Record
from upshot.url import Url
from upshot_backends.memcached.results import MemcachedBackend
from upshot_conformance.harnesses.memcached import MemcachedHarness
from upshot_conformance.servers import MemcachedServer

BackendOpener = Callable[..., MemcachedBackend]
RecordMaker = Callable[..., StoredRecord]

_PATIENCE = 30.0  # seconds for what should happen at once


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def _run(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize(("parameter", "most"), [("", 16), ("?max_pool_size=3", 3)])
def test_many_threads_share_a_bounded_number_of_connections(
    open_backend: BackendOpener,
    fragile: MemcachedServer,
    record: RecordMaker,
    parameter: str,
    most: int,
) -> None:
    backend = open_backend(fragile.url + parameter)
    looking = MemcachedHarness(Url.parse(fragile.url))
    assert looking.connections() == 0
    barrier = threading.Barrier(64)
    wrong: list[object] = []

    def live(name: str) -> None:
        barrier.wait()
        for number in range(20):
            mine = record(f"{name}-{number}", name.encode() * 50)
            backend.store([mine], _PATIENCE)
            if (found := backend.load([mine.key], _PATIENCE)) != [mine.body]:
                wrong.append(found)
            backend.delete([mine.key], _PATIENCE)

    _run([threading.Thread(target=live, args=(f"thread-{number}",)) for number in range(64)])

    assert wrong == []
    assert 1 <= looking.connections() <= most
    assert looking.raw_objects("") == set()
    looking.close()


def test_a_call_that_gets_no_connection_ends_in_time(
    open_backend: BackendOpener, fragile: MemcachedServer
) -> None:
    backend = open_backend(f"{fragile.url}?max_pool_size=2")
    fragile.pause()
    failed: list[str] = []

    def load(timeout: float) -> None:
        try:
            backend.load(["a"], timeout)
        except TimeoutError as exc:
            failed.append(str(exc))

    _run([threading.Thread(target=load, args=(timeout,)) for timeout in (2.0, 2.0, 0.1, 0.1)])
    fragile.resume()

    assert len(failed) == 4
    assert backend.load(["a"], _PATIENCE) == [None]  # no connection was lost to the count
    _run([threading.Thread(target=load, args=(_PATIENCE,)) for _ in range(8)])
    assert len(failed) == 4


def test_failed_connections_are_not_counted(
    open_backend: BackendOpener, fragile: MemcachedServer
) -> None:
    backend = open_backend(f"{fragile.url}?max_pool_size=2")
    fragile.kill()
    for _ in range(10):
        with pytest.raises(ConnectionError, match="refused"):
            backend.load(["a"], _PATIENCE)
    fragile.restart()

    assert backend.load(["a"], _PATIENCE) == [None]


def test_closing_frees_every_descriptor_and_ends_what_waits(
    open_backend: BackendOpener, fragile: MemcachedServer
) -> None:
    descriptors = _descriptors()
    backend = open_backend(f"{fragile.url}?max_pool_size=2")
    backend.load(["a"], _PATIENCE)
    fragile.pause()
    failed: list[Exception] = []

    def load() -> None:
        try:
            backend.load(["a"], 120.0)
        except ConnectionError as exc:
            failed.append(exc)

    threads = [threading.Thread(target=load) for _ in range(5)]  # two wait for an answer
    for thread in threads:
        thread.start()
    deadline = Deadline(_PATIENCE)
    while _descriptors() < descriptors + 2 and not deadline.expired:
        clock.sleep(0.005)
    began = clock.monotonic()
    backend.close()
    backend.close()
    for thread in threads:
        thread.join()

    assert clock.monotonic() - began < _PATIENCE
    assert len(failed) == 5
    assert _descriptors() == descriptors
    fragile.resume()


def test_a_backend_that_is_dropped_closes_its_connections(fragile: MemcachedServer) -> None:
    descriptors = _descriptors()
    backend = MemcachedBackend(Url.parse(fragile.url))
    backend.load(["a"], _PATIENCE)
    assert _descriptors() == descriptors + 1

    del backend

    assert _descriptors() == descriptors


def test_a_fork_during_a_wait_disturbs_neither_side(
    fragile: MemcachedServer, namespace: str
) -> None:
    url = Url.parse(fragile.url)
    client = ResultClient(lambda: MemcachedBackend(url), url=url, namespace=namespace)
    client.store(_finished("before"))
    ended: list[Record] = []
    waiting = threading.Thread(target=lambda: ended.append(client.wait("after", timeout=60)))
    waiting.start()
    deadline = Deadline(_PATIENCE)
    while not client.stats()["waiters"] and not deadline.expired:
        clock.sleep(0.005)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on forks with threads
        child = os.fork()
    if child == 0:
        code = 1
        try:
            for _ in range(200):
                assert client.load("before") == _finished("before")
                assert client.load("unknown") is None
            client.store(_finished("from the child"))
            client.close()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    for _ in range(200):
        assert client.load("before") == _finished("before")
        assert client.load("unknown") is None
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert waiting.is_alive()
    client.store(_finished("after"))
    waiting.join()

    assert ended == [_finished("after")]
    assert client.load("from the child") == _finished("from the child")
    client.close()


def _finished(task_id: str) -> Record:
    return Record(task_id=task_id, state="SUCCESS", outcome=Payload("json", task_id.encode()))
