"""Waits on memcached, which cannot notify: many, through failures, and for what was evicted."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator

import pytest

from upshot import clock
from upshot.client import ResultClient
from upshot.clock import Deadline
from upshot.errors import (
    CorruptRecordError,
    ResultTimeoutError,
    ServiceClosedError,
    ServiceUnavailableError,
)
from upshot.record import Payload, Record
from upshot.url import Url
from upshot_backends.memcached.results import MemcachedBackend
from upshot_conformance.harnesses.memcached import MemcachedHarness
from upshot_conformance.servers import MemcachedServer

ClientOpener = Callable[..., ResultClient]

_PATIENCE = 60.0  # seconds for what should happen soon, on a machine that does ten other things


@pytest.fixture
def open_client(namespace: str) -> Iterator[ClientOpener]:
    """Opens clients at a URL, in the test's namespace."""
    opened: list[ResultClient] = []

    def open_one(text: str, timeout: float = 5.0) -> ResultClient:
        url = Url.parse(text)
        opened.append(
            ResultClient(
                lambda: MemcachedBackend(url), url=url, namespace=namespace, timeout=timeout
            )
        )
        return opened[-1]

    yield open_one
    for client in opened:
        client.close()


def _finished(task_id: str, body: bytes = b"1") -> Record:
    return Record(task_id=task_id, state="SUCCESS", outcome=Payload("x", body))


class _Wait:
    """A wait in a thread of its own."""

    def __init__(self, client: ResultClient, task_id: str, timeout: float = _PATIENCE) -> None:
        self.outcome: Record | Exception | None = None
        self._thread = threading.Thread(target=self._wait, args=(client, task_id, timeout))
        self._thread.start()

    def _wait(self, client: ResultClient, task_id: str, timeout: float) -> None:
        try:
            self.outcome = client.wait(task_id, timeout=timeout)
        except Exception as exc:
            self.outcome = exc

    def result(self) -> Record | Exception | None:
        """Return what the wait returned or raised."""
        self._thread.join()
        return self.outcome


def _until(condition: Callable[[], bool]) -> None:
    deadline = Deadline(_PATIENCE)
    while not condition() and not deadline.expired:
        clock.sleep(0.005)
    assert condition()


@pytest.mark.timeout(300)
def test_one_wait_for_ten_thousand_ids_takes_few_connections_and_threads(
    open_client: ClientOpener,
    fragile: MemcachedServer,
    other: MemcachedServer,
    together: Callable[..., str],
) -> None:
    url = together(fragile, other)
    client, writer = open_client(url, 60.0), open_client(url, 60.0)
    ids = [f"id-{number}" for number in range(10_000)]
    client.load(ids[0])
    writer.load(ids[0])
    looking = MemcachedHarness(Url.parse(url))
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    most: list[int] = []
    found: set[str] = set()

    def write() -> None:
        for start in range(0, len(ids), 500):
            writer.store_many([_finished(each, each.encode()) for each in ids[start : start + 500]])

    writing = threading.Thread(target=write)
    waiting = client.wait_many([*ids, *ids[:10]], timeout=240)
    writing.start()
    for task_id, record in waiting:
        assert record == _finished(task_id, task_id.encode())
        assert task_id not in found
        found.add(task_id)
        if len(found) % 1000 == 0:
            most.append(looking.connections())
            assert threading.active_count() <= threads + 2  # the hub's, the writer's
            assert len(os.listdir("/proc/self/fd")) <= descriptors + 8
    writing.join()

    assert found == set(ids)
    assert max(most) <= 2 * (2 + 1)  # to each server: the reader, its hub, the writer
    client.forget(ids)
    assert looking.raw_objects("") == set()
    looking.close()


def test_a_thousand_results_leave_the_server_as_it_was(
    open_client: ClientOpener, fragile: MemcachedServer
) -> None:
    client = open_client(fragile.url)
    looking = MemcachedHarness(Url.parse(fragile.url))
    for number in range(1000):
        task_id = f"id-{number}"
        client.store(Record(task_id=task_id, state="QUEUED"))
        client.store(_finished(task_id, bytes(number * 10)))
        assert client.wait(task_id, timeout=_PATIENCE).is_terminal
        client.forget([task_id])

    assert looking.raw_objects("") == set()
    assert looking.connections() <= 2
    looking.close()


@pytest.mark.parametrize("fault", ["restart", "pause"])
def test_a_wait_outlasts_a_server_that_is_away(
    open_client: ClientOpener, fragile: MemcachedServer, fault: str
) -> None:
    client, writer = open_client(fragile.url, 0.5), open_client(fragile.url)
    waits = [_Wait(client, task_id) for task_id in ("a", "b")]
    _until(lambda: client.stats()["waiters"] == 2)
    if fault == "restart":
        fragile.kill()
    else:
        fragile.pause()
    with pytest.raises(ServiceUnavailableError):
        client.load("a")  # it is away, and the waits wait
    assert [wait.outcome for wait in waits] == [None, None]
    if fault == "restart":
        fragile.restart()
    else:
        fragile.resume()
    writer.store_many([_finished("a"), _finished("b")])

    assert [wait.result() for wait in waits] == [_finished("a"), _finished("b")]


def test_a_wait_on_a_server_that_stays_away_ends_by_its_timeout_and_says_why(
    open_client: ClientOpener, fragile: MemcachedServer
) -> None:
    client = open_client(fragile.url, 0.5)
    wait = _Wait(client, "a", timeout=3.0)
    _until(lambda: client.stats()["waiters"] == 1)
    fragile.kill()

    outcome = wait.result()

    assert isinstance(outcome, ResultTimeoutError)
    assert str(fragile.port) in str(outcome)


def test_closing_ends_a_wait(open_client: ClientOpener, fragile: MemcachedServer) -> None:
    client = open_client(fragile.url)
    wait = _Wait(client, "a")
    _until(lambda: client.stats()["waiters"] == 1)
    client.close()

    assert isinstance(wait.result(), ServiceClosedError)


def test_what_was_evicted_is_absent_or_corrupt_and_never_wrong(
    open_client: ClientOpener,
) -> None:
    with MemcachedServer(megabytes=2) as server:
        client = open_client(server.url, 30.0)
        ids = [f"id-{number}" for number in range(5000)]
        bodies = {each: each.encode() * 100 for each in ids}
        for start in range(0, len(ids), 500):
            client.store_many([_finished(each, bodies[each]) for each in ids[start : start + 500]])
        client.store(_finished("large", bytes(3 * 2**20)))  # more than the server has

        found = dict(zip(ids, client.load_many(ids), strict=True))
        lost = [task_id for task_id, record in found.items() if record is None]
        assert 0 < len(lost) < len(ids)
        for task_id in found.keys() - lost:
            assert found[task_id] == _finished(task_id, bodies[task_id])
        with pytest.raises(ResultTimeoutError):
            client.wait(lost[0], timeout=0.3)
        with pytest.raises((ResultTimeoutError, CorruptRecordError)):
            client.wait("large", timeout=0.3)
