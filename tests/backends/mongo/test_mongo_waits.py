"""Waiting for results on MongoDB: change streams, gaps, fail-overs, and servers without streams."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from pymongo.errors import AutoReconnect, PyMongoError

from upshot import clock
from upshot.backend import StoredRecord
from upshot.client import ResultClient
from upshot.clock import Deadline
from upshot.errors import ResultForgottenError, ResultTimeoutError, ServiceClosedError
from upshot.listening import Hint, Listener
from upshot.record import Payload, Record
from upshot.url import Url
from upshot_backends.mongo.connection import MongoDatabase
from upshot_backends.mongo.listener import MongoListener
from upshot_backends.mongo.results import MongoBackend
from upshot_conformance.concurrency import start
from upshot_conformance.harnesses.mongo import MongoHarness
from upshot_conformance.servers import MongoDBServer

Inject = Callable[..., None]
OpenClient = Callable[..., ResultClient]
RecordMaker = Callable[..., StoredRecord]

_PATIENCE = 30.0  # seconds
_PROGRAM = Path(__file__).parents[1] / "programs" / "fork_during_wait.py"


def _finished(task_id: str, body: bytes = b"1") -> Record:
    return Record(task_id=task_id, state="SUCCESS", outcome=Payload("json", body))


def _hear(listener: Listener, count: int) -> list[Hint]:
    """Collect `count` hints, for as long as patience lasts."""
    heard: list[Hint] = []
    deadline = Deadline(_PATIENCE)
    while len(heard) < count and not deadline.expired:
        heard += listener.wait(0.2)
    return heard


def _eventually(look: Callable[[], object], patience: float = _PATIENCE) -> None:
    deadline = Deadline(patience)
    while not look():
        assert not deadline.expired, "it did not come true"
        clock.sleep(0.01)


def _waiting(client: ResultClient, task_id: str) -> Future[Record]:
    """Wait for a task in a thread; return once the wait is in the change stream's hands."""
    future: Future[Record] = start(lambda: client.wait(task_id, timeout=120.0))
    _eventually(lambda: client.stats()["listeners"])
    return future


def _streams() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "upshot-stream-mongodb"]


# -- hints ----------------------------------------------------------------------------------


def test_a_short_body_travels_in_the_hint_and_a_long_one_is_read(
    backend: MongoBackend, record: RecordMaker
) -> None:
    listener = backend.listen(_PATIENCE)
    assert listener is not None
    batch = [
        record("new", bytes(8192), terminal=True),
        record("changed", bytes(8192), terminal=True, rank=31),
        record("long", bytes(8193), terminal=True),
        record("longest", bytes(15 * 2**20), terminal=True),
    ]
    backend.store([record("changed", b"progress")], _PATIENCE)
    listener.subscribe([each.key for each in batch])
    backend.store(batch, _PATIENCE)

    assert _hear(listener, 4) == [
        Hint(batch[0].key, bytes(8192)),
        Hint(batch[1].key, bytes(8192)),
        Hint(batch[2].key, None),
        Hint(batch[3].key, None),
    ]
    listener.close()


def test_the_same_end_again_after_its_expiry_is_heard(
    backend: MongoBackend, record: RecordMaker
) -> None:
    ended = record("a", b"end" * 100, terminal=True, expires=0.02)
    backend.store([ended], _PATIENCE)
    _eventually(lambda: backend.load([ended.key], _PATIENCE) == [None])
    listener = backend.listen(_PATIENCE)
    assert listener is not None
    listener.subscribe([ended.key])
    backend.store([ended], _PATIENCE)

    assert [hint.key for hint in _hear(listener, 1)] == [ended.key]
    listener.close()


def test_only_ends_of_subscribed_keys_are_heard(backend: MongoBackend, record: RecordMaker) -> None:
    listener = backend.listen(_PATIENCE)
    assert listener is not None
    listener.subscribe([record("a").key])
    listener.subscribe([record("gone").key])
    listener.unsubscribe([record("gone").key, record("unknown").key])
    backend.store(
        [
            record("a", b"progress"),
            record("a", b"more progress", rank=21),
            record("gone", terminal=True),
            record("other", terminal=True),
            record("a", b"end", terminal=True, rank=31),
        ],
        _PATIENCE,
    )

    assert _hear(listener, 1) == [Hint(record("a").key, b"end")]
    listener.close()


def test_another_collection_with_the_same_key_is_not_heard(
    server: MongoDBServer, backend: MongoBackend, record: RecordMaker
) -> None:
    other = MongoBackend(Url.parse(server.url + "&upshot_collection=others"))
    listener = backend.listen(_PATIENCE)
    assert listener is not None
    listener.subscribe([record("a").key])
    other.store([record("a", b"other", terminal=True)], _PATIENCE)
    backend.store([record("a", b"mine", terminal=True)], _PATIENCE)

    assert _hear(listener, 1) == [Hint(record("a").key, b"mine")]
    listener.close()
    other.close()


def test_forgetting_tells_also_where_there_was_no_record(
    backend: MongoBackend, record: RecordMaker
) -> None:
    listener = backend.listen(_PATIENCE)
    assert listener is not None
    keys = [record("known").key, record("unknown").key]
    backend.store([record("known")], _PATIENCE)
    listener.subscribe(keys)
    backend.delete(keys, _PATIENCE)

    assert _hear(listener, 2) == [Hint(key, b"") for key in keys]
    listener.close()


def test_foreign_documents_do_not_disturb_the_stream(
    backend: MongoBackend, raw: Any, record: RecordMaker, namespace: str
) -> None:
    listener = backend.listen(_PATIENCE)
    assert listener is not None
    text, end = record("text"), record("end", terminal=True)
    listener.subscribe([text.key, end.key])
    foreign: Sequence[Any] = [{"a": 1}, 7, text.key]
    for each in foreign:
        raw.insert_one({"_id": each, "ended_at": 1, "body": [1], "mark": namespace})
    backend.store([end], _PATIENCE)

    assert _hear(listener, 2) == [Hint(text.key, None), Hint(end.key, b"body")]
    raw.delete_many({"mark": namespace})
    listener.close()


@pytest.mark.parametrize(
    "fault", [{"errorCode": 286}, {"errorCode": 13}, {"closeConnection": True}]
)
def test_a_lost_stream_is_said_to_be_lost(
    fragile: MongoDBServer, driver: Callable[[str], Any], inject: Inject, fault: dict[str, Any]
) -> None:
    backend = MongoBackend(Url.parse(fragile.url))
    listener = backend.listen(_PATIENCE)
    assert listener is not None
    inject(driver(fragile.url)["admin"], ["getMore"], times=1, **fault)

    with pytest.raises(PyMongoError):
        _hear(listener, 1)
    listener.subscribe(["any"])  # as the hub may before it waits again
    with pytest.raises(PyMongoError):
        listener.wait(0.0)
    listener.close()
    backend.close()


def test_an_interruption_ends_a_wait(backend: MongoBackend) -> None:
    listener = backend.listen(_PATIENCE)
    assert listener is not None
    waiting = start(lambda: listener.wait(600.0))
    listener.interrupt()

    assert waiting.result(_PATIENCE) == []
    listener.close()


def test_a_stream_nobody_needs_is_closed_and_opened_again(
    server: MongoDBServer, backend: MongoBackend, record: RecordMaker
) -> None:
    database = MongoDatabase(Url.parse(server.url))
    listener = MongoListener(database, _PATIENCE, rest=0.0)
    _eventually(lambda: not _streams())
    for number in range(3):
        ended = record(str(number), b"%d" % number, terminal=True)
        listener.subscribe([ended.key])
        backend.store([ended], _PATIENCE)

        assert _hear(listener, 1) == [Hint(ended.key, ended.body)]
        listener.unsubscribe([ended.key])
        _eventually(lambda: not _streams())
    listener.close()
    database.close()


# -- waits ----------------------------------------------------------------------------------


def test_ten_thousand_ids_are_heard_on_one_stream(
    server: MongoDBServer, client: ResultClient, open_client: OpenClient
) -> None:
    ids = [f"task-{i}" for i in range(10_000)]
    storing = open_client(server)
    assert client.load("warm-up") is None
    assert storing.load("warm-up") is None
    harness = MongoHarness(Url.parse(server.url))
    _eventually(lambda: not _streams())  # of tests before this one
    connections, threads = harness.connections(), threading.active_count()
    ended: list[str] = []
    waiting = threading.Thread(
        target=lambda: ended.extend(task_id for task_id, _ in client.wait_many(ids, timeout=100.0))
    )
    waiting.start()
    _eventually(lambda: client.stats()["listeners"])
    during, active = harness.connections() - connections, threading.active_count() - threads
    storing.store_many([_finished(task_id) for task_id in reversed(ids)])
    waiting.join()

    assert sorted(ended) == sorted(ids)
    assert during <= 2  # one for the stream, one that reads
    assert active <= 3  # the waiting one, the hub, the stream
    harness.close()
    client.forget(ids)


def test_what_expires_tells_nobody(fragile: MongoDBServer, open_client: OpenClient) -> None:
    client, other = open_client(fragile), open_client(fragile)
    harness = MongoHarness(Url.parse(fragile.url))
    other.store(Record(task_id="a", state="STARTED"), expires=0.5)
    waiting = _waiting(client, "a")
    _eventually(lambda: harness.raw_objects("") == set(), 60.0)
    other.store(_finished("a"))

    assert waiting.result(_PATIENCE) == _finished("a")
    harness.close()


def test_forgetting_by_another_process_ends_a_wait(
    client: ResultClient, server: MongoDBServer, open_client: OpenClient
) -> None:
    waiting = _waiting(client, "unknown")
    open_client(server).forget(["unknown"])

    with pytest.raises(ResultForgottenError):
        waiting.result(_PATIENCE)


@pytest.mark.parametrize("fault", ["restart", "step down", "drop", "lost stream"])
def test_a_wait_outlives_what_befalls_the_server(
    fragile: MongoDBServer,
    driver: Callable[[str], Any],
    open_client: OpenClient,
    inject: Inject,
    fault: str,
) -> None:
    client, other = open_client(fragile), open_client(fragile)
    other.store(Record(task_id="a", state="STARTED"))
    waiting = _waiting(client, "a")
    admin = driver(fragile.url)["admin"]
    if fault == "restart":
        fragile.kill()
        fragile.restart()
    elif fault == "step down":
        with contextlib.suppress(AutoReconnect):  # it may close the connection before it answers
            admin.command("replSetStepDown", 1, force=True)
    elif fault == "drop":
        admin.client.drop_database("upshot")
    else:
        inject(admin, ["getMore"], times=3, errorCode=136)  # CappedPositionLost
        admin.command("waitForFailPoint", "failCommand", timesEntered=1, maxTimeMS=60_000)
    other.store(_finished("a"))

    assert waiting.result(_PATIENCE) == _finished("a")


def test_a_frozen_server_does_not_hold_a_wait(
    fragile: MongoDBServer, open_client: OpenClient
) -> None:
    client = open_client(fragile, timeout=1.0)
    endless = _waiting(client, "a")
    fragile.pause()

    with pytest.raises(ResultTimeoutError):
        start(lambda: client.wait("b", timeout=0.5)).result(_PATIENCE)
    fragile.resume()
    open_client(fragile).store(_finished("a"))
    assert endless.result(_PATIENCE) == _finished("a")


def test_closing_ends_waits_though_the_server_is_frozen(
    fragile: MongoDBServer, open_client: OpenClient
) -> None:
    client = open_client(fragile, timeout=1.0)
    waiting = _waiting(client, "a")
    fragile.pause()
    start(client.close).result(_PATIENCE)

    assert waiting.exception(_PATIENCE) is not None
    fragile.resume()
    _eventually(lambda: not _streams())


def test_a_fork_during_a_wait_disturbs_neither_process(server: MongoDBServer) -> None:
    url = server.url.replace("/?", "/forked?")
    ran = subprocess.run(
        [sys.executable, "-W", "error", str(_PROGRAM), url],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "SUCCESS\n", "")


def test_closing_frees_descriptors_and_threads(
    server: MongoDBServer, open_client: OpenClient
) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    def pymongo_threads() -> int:
        return sum("pymongo" in thread.name for thread in threading.enumerate())

    _eventually(lambda: not pymongo_threads())  # of tests before this one
    before = descriptors()
    client = open_client(server)
    waiting = [start(lambda: client.wait("a", timeout=600.0)) for _ in range(8)]
    _eventually(lambda: client.stats()["listeners"])
    assert pymongo_threads() > 0
    client.close()
    client.close()

    for each in waiting:
        assert isinstance(each.exception(_PATIENCE), ServiceClosedError)
    _eventually(lambda: not pymongo_threads() and descriptors() <= before)


# -- without change streams -----------------------------------------------------------------


def test_a_standalone_server_is_polled(standalone: MongoDBServer, open_client: OpenClient) -> None:
    client, other = open_client(standalone), open_client(standalone)
    assert client.capabilities.push
    client.load("a")
    assert not client.capabilities.push
    waiting = start(lambda: client.wait("a", timeout=100.0))
    _eventually(lambda: client.stats()["keys"])
    other.store(_finished("a"))

    assert waiting.result(_PATIENCE) == _finished("a")
    assert client.stats()["listeners"] == 0
    client.forget(["a"])


@pytest.mark.parametrize("first", ["store", "delete", "listen"])
def test_a_standalone_server_is_known_from_the_first_call_on(
    standalone: MongoDBServer, record: RecordMaker, first: str
) -> None:
    backend = MongoBackend(Url.parse(standalone.url))
    if first == "store":
        backend.store([record("a")], _PATIENCE)
    elif first == "delete":
        backend.delete([record("a").key], _PATIENCE)
    assert backend.listen(_PATIENCE) is None

    assert not backend.capabilities.push
    assert MongoBackend.capabilities.push
    backend.close()
