"""Results on MongoDB: the guard under races, expiry, what the server holds, foreign documents."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from bson.datetime_ms import DatetimeMS
from pymongo.monitoring import (
    CommandFailedEvent,
    CommandListener,
    CommandStartedEvent,
    CommandSucceededEvent,
)

from upshot import clock
from upshot.backend import StoredRecord
from upshot.client import ResultClient
from upshot.clock import Deadline
from upshot.errors import CorruptRecordError
from upshot.record import Payload, Record
from upshot.url import Url
from upshot_backends.mongo import connection, documents
from upshot_backends.mongo.driver import Settings, read_url
from upshot_backends.mongo.results import MongoBackend
from upshot_conformance.harnesses.mongo import MongoHarness
from upshot_conformance.servers import MongoDBServer

OpenClient = Callable[..., ResultClient]
RecordMaker = Callable[..., StoredRecord]

_PATIENCE = 30.0  # seconds


def _finished(task_id: str, body: bytes = b"1") -> Record:
    return Record(task_id=task_id, state="SUCCESS", outcome=Payload("json", body))


def _race(server: MongoDBServer, writers: int, write: Callable[[int, MongoBackend], None]) -> None:
    """Run `write(number, backend)` in several threads at once, each with its own backend."""
    backends = [MongoBackend(Url.parse(server.url)) for _ in range(writers)]
    threads = [
        threading.Thread(target=write, args=(number, backend))
        for number, backend in enumerate(backends)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for backend in backends:
        backend.close()


# -- the guard ------------------------------------------------------------------------------


def test_of_eight_racing_terminal_writers_exactly_one_wins(
    server: MongoDBServer, backend: MongoBackend, record: RecordMaker
) -> None:
    barrier = threading.Barrier(8)
    won: list[tuple[str, bytes]] = []

    def write(number: int, own: MongoBackend) -> None:
        body = b"%d" % number
        for round_number in range(40):
            mine = record(str(round_number), body, terminal=True, rank=31)
            late = record(str(round_number), b"late", rank=20)
            barrier.wait()
            if own.store([mine, late], _PATIENCE)[0]:
                won.append((mine.key, body))

    _race(server, 8, write)
    keys = [record(str(round_number)).key for round_number in range(40)]

    assert Counter(key for key, _ in won) == dict.fromkeys(keys, 1)
    assert dict(won) == dict(zip(keys, backend.load(keys, _PATIENCE), strict=True))


def test_who_loses_the_race_to_be_first_is_not_refused_for_that(
    server: MongoDBServer, record: RecordMaker
) -> None:
    barrier = threading.Barrier(4)
    answers: list[bool] = []

    def write(number: int, own: MongoBackend) -> None:
        for round_number in range(40):
            mine = record(str(round_number), rank=20 + number)
            barrier.wait()
            applied = own.store([mine], _PATIENCE)
            if number == 3:  # the highest rank: it applies, whoever was first
                answers.extend(applied)

    _race(server, 4, write)

    assert answers == [True] * 40


def test_a_key_that_comes_again_in_a_batch_meets_its_predecessor(
    backend: MongoBackend, record: RecordMaker
) -> None:
    batch = [
        record("a", b"started"),
        record("b", b"other"),
        record("a", b"first end", terminal=True, rank=31),
        record("a", b"second end", terminal=True, rank=47),
        record("a", b"late", rank=36),
    ]

    assert backend.store(batch, _PATIENCE) == [True, True, True, False, False]
    assert backend.load([batch[0].key, batch[1].key], _PATIENCE) == [b"first end", b"other"]


def test_a_refused_record_changes_nothing(
    backend: MongoBackend, raw: Any, record: RecordMaker
) -> None:
    first = record("a", b"first", terminal=True)
    backend.store([first], _PATIENCE)
    before = raw.find_one({"_id": first.key})

    assert backend.store([record("a", b"second", rank=31, expires=None)], _PATIENCE) == [False]
    assert raw.find_one({"_id": first.key}) == before


def test_an_applied_record_replaces_everything(
    backend: MongoBackend, raw: Any, record: RecordMaker
) -> None:
    backend.store([record("a", terminal=True, expires=0.001)], _PATIENCE)
    deadline = Deadline(_PATIENCE)
    while backend.load([record("a").key], _PATIENCE) != [None] and not deadline.expired:
        clock.sleep(0.005)
    backend.store([record("a", b"next", expires=None)], _PATIENCE)

    found = raw.find_one({"_id": record("a").key})
    assert found["body"] == b"next"
    assert found.keys().isdisjoint({"expires_at", "ended_at"})


def test_a_batch_of_many_bytes_is_stored_in_parts_and_in_order(
    backend: MongoBackend, record: RecordMaker
) -> None:
    batch = [record(str(i % 20), bytes(2**20), rank=20 + i // 20) for i in range(40)]

    assert backend.store(batch, _PATIENCE) == [True] * 40
    assert backend.store(list(reversed(batch)), _PATIENCE) == [True] * 20 + [False] * 20


def test_the_answers_of_a_large_batch_stand_in_its_order(
    backend: MongoBackend, record: RecordMaker
) -> None:
    backend.store([record(str(i), terminal=True) for i in range(0, 3000, 3)], _PATIENCE)

    answers = backend.store([record(str(i)) for i in range(3000)], _PATIENCE)

    assert answers == [i % 3 != 0 for i in range(3000)]


def test_a_record_stored_while_the_key_is_being_forgotten_stays(
    backend: MongoBackend, raw: Any, record: RecordMaker
) -> None:
    stored = record("a", b"late", terminal=True)
    update, remove = documents.forget(stored.key), documents.remove([stored.key], forgotten=True)
    raw.database.command("update", raw.name, updates=[update])

    assert backend.load([stored.key], _PATIENCE) == [None]
    assert backend.store([stored], _PATIENCE) == [True]
    raw.database.command("delete", raw.name, deletes=[remove])
    assert backend.load([stored.key], _PATIENCE) == [b"late"]


class _Commands(CommandListener):
    """Notes what pymongo sends: names of commands, with the write concern of those that write."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Mapping[str, Any] | None]] = []

    def started(self, event: CommandStartedEvent) -> None:
        self.sent.append((event.command_name, event.command.get("writeConcern")))

    def succeeded(self, event: CommandSucceededEvent) -> None:
        pass

    def failed(self, event: CommandFailedEvent) -> None:
        pass


def test_every_call_is_one_command_and_only_what_must_last_waits_for_a_majority(
    server: MongoDBServer, monkeypatch: pytest.MonkeyPatch, record: RecordMaker
) -> None:
    commands = _Commands()

    def read_and_listen(url: Url) -> Settings:
        settings = read_url(url)
        return replace(settings, keywords={**settings.keywords, "event_listeners": [commands]})

    monkeypatch.setattr(connection, "read_url", read_and_listen)
    backend = MongoBackend(Url.parse(server.url))

    def cost(call: Callable[[], object]) -> list[tuple[str, Mapping[str, Any] | None]]:
        commands.sent.clear()
        call()
        return list(commands.sent)

    batch = [record("a"), record("b"), record("c")]
    ended = [record("a", terminal=True, rank=31), record("d")]
    keys = [each.key for each in batch]
    passing, lasting = ("update", {"w": 1}), ("update", {"w": "majority"})
    assert cost(lambda: backend.store(batch, 9.0)) == [("createIndexes", None), passing]
    assert cost(lambda: backend.store(ended, 9.0)) == [lasting]
    assert cost(lambda: backend.store(batch[:1], 9.0)) == [passing]
    assert cost(lambda: backend.load(keys, 9.0)) == [("find", None)]
    assert cost(lambda: backend.delete(keys, 9.0)) == [passing, ("delete", {"w": "majority"})]
    monkeypatch.undo()
    backend.close()


# -- expiry ---------------------------------------------------------------------------------


def test_an_expired_record_is_nowhere_and_in_nobodys_way(
    backend: MongoBackend, record: RecordMaker
) -> None:
    first = record("a", b"first", terminal=True, expires=0.02)
    backend.store([first, record("b")], _PATIENCE)
    deadline = Deadline(_PATIENCE)
    while backend.load([first.key], _PATIENCE) != [None] and not deadline.expired:
        clock.sleep(0.005)

    assert backend.load([first.key, record("b").key], _PATIENCE) == [None, b"body"]
    assert list(backend.scan(first.key[:-1], _PATIENCE)) == [record("b").key]
    assert backend.store([record("a", b"second", rank=1)], _PATIENCE) == [True]


def test_the_server_removes_what_has_expired(
    fragile: MongoDBServer, driver: Callable[[str], Any], record: RecordMaker
) -> None:
    backend = MongoBackend(Url.parse(fragile.url))
    backend.store([record("a", expires=0.001), record("b"), record("c", expires=None)], _PATIENCE)
    collection = driver(fragile.url)["upshot"]["results"]
    deadline = Deadline(60.0)
    while collection.count_documents({}) > 2 and not deadline.expired:
        clock.sleep(0.05)

    assert {document["task_id"] for document in collection.find()} == {"b", "c"}
    backend.close()


@pytest.mark.parametrize("seconds", [1e-9, 2_678_400.0, 1e12, float("inf")])
def test_any_expiry_is_taken(
    backend: MongoBackend, raw: Any, record: RecordMaker, seconds: float
) -> None:
    stored = record("a", expires=seconds)

    assert backend.store([stored], _PATIENCE) == [True]
    found = raw.find_one({"_id": stored.key})
    exact = timedelta(seconds=min(seconds, 2e11), milliseconds=seconds < 0.001)
    assert found["expires_at"] - found["stored_at"] == exact


# -- what the server holds ------------------------------------------------------------------


def test_metadata_can_be_queried(backend: MongoBackend, raw: Any, record: RecordMaker) -> None:
    done = record("done", terminal=True, expires=600.0, name="app.add")
    odd = record("odd", name="\ud800" + "x" * 2**20)
    backend.store([done, odd], _PATIENCE)

    found = raw.find_one({"task_id": "done", "_id": done.key})
    assert (found["name"], found["state"], found["body"]) == ("app.add", "SUCCESS", b"body")
    assert found["ended_at"] == found["stored_at"]
    assert found["expires_at"] - found["stored_at"] == timedelta(seconds=600)
    assert raw.find_one({"_id": odd.key})["name"] == "?" + "x" * 199
    assert raw.index_information()["expires_at"]["expireAfterSeconds"] == 0


def test_database_and_collection_are_chosen_by_the_url(
    server: MongoDBServer, driver: Callable[[str], Any], record: RecordMaker
) -> None:
    url = server.url.replace("/?", "/other-db?") + "&upshot_collection=jobs.results"
    backend = MongoBackend(Url.parse(url))
    backend.store([record("a")], _PATIENCE)

    database = driver(server.url)["other-db"]
    assert database.list_collection_names() == ["jobs.results"]
    assert database["jobs.results"].count_documents({"_id": record("a").key}) == 1
    backend.close()


def test_keys_are_data_and_nothing_else(backend: MongoBackend, record: RecordMaker) -> None:
    ids = [
        "$where",
        "$gt",
        "a.b",
        "a",
        "$",
        "",
        ".",
        "a\0b",
        "A",
        "é",
        "e\u0301",
        "{}",
        "😀",
        " a ",
    ]
    batch = [record(task_id, task_id.encode(), terminal=True) for task_id in ids]
    keys = [each.key for each in batch]

    assert backend.store(batch, _PATIENCE) == [True] * len(ids)
    assert backend.load(keys, _PATIENCE) == [each.body for each in batch]
    assert [backend.load([key], _PATIENCE)[0] for key in keys] == [each.body for each in batch]
    assert set(backend.scan(record("").key, _PATIENCE)) == set(keys)
    backend.delete(keys[::2], _PATIENCE)
    left = [None if i % 2 == 0 else each.body for i, each in enumerate(batch)]
    assert backend.load(keys, _PATIENCE) == left


def test_scan_finds_every_key_of_a_prefix_and_no_other(
    backend: MongoBackend, raw: Any, namespace: str, record: RecordMaker
) -> None:
    inside = [record(str(i)) for i in range(2500)]
    backend.store(inside, _PATIENCE)
    foreign: list[Any] = [f"{namespace}", f"{namespace};", f"{namespace}9:x", 7, {"a": namespace}]
    raw.insert_many([{"_id": each, "mark": namespace} for each in foreign])

    assert sorted(backend.scan(f"{namespace}:", _PATIENCE)) == sorted(r.key for r in inside)
    raw.delete_many({"mark": namespace})


def test_a_thousand_times_stored_and_forgotten_leaves_nothing(
    client: ResultClient, raw: Any
) -> None:
    client.store(_finished("first"))
    client.forget(["first"])
    names = sorted(raw.database.list_collection_names())
    for number in range(1000):
        client.store(_finished(f"task-{number}"))
        client.forget([f"task-{number}"])

    assert raw.count_documents({"_id": {"$regex": f"^{client.namespace}"}}) == 0
    assert sorted(raw.database.list_collection_names()) == names


def test_looking_and_waiting_create_nothing(
    server: MongoDBServer,
    driver: Callable[[str], Any],
    namespace: str,
    open_client: OpenClient,
) -> None:
    client = open_client(server.url.replace("/?", f"/{namespace}?"))
    assert client.load("a") is None
    with pytest.raises(TimeoutError):
        client.wait("a", timeout=0.05)

    assert list(client.scan()) == []
    assert namespace not in driver(server.url).list_database_names()


def test_a_record_of_the_maximum_fits_with_the_longest_key_and_name(
    backend: MongoBackend, record: RecordMaker
) -> None:
    prefix = len(record("").key.encode())
    largest = record(
        "k" * (1024 - prefix),
        bytes(backend.capabilities.max_record_bytes),
        terminal=True,
        name="😀" * 1000,
    )

    assert backend.store([largest, record("a"), largest], _PATIENCE) == [True, True, False]
    assert backend.load([largest.key], _PATIENCE) == [largest.body]
    backend.delete([largest.key], _PATIENCE)


# -- foreign documents ----------------------------------------------------------------------

_FOREIGN: dict[str, dict[str, Any]] = {
    "empty": {},
    "text": {"body": "text", "barrier": "high"},
    "nothing": {"body": None, "barrier": None, "expires_at": None},
    "lists": {"body": [1], "barrier": [2**31 - 1], "expires_at": [0]},
    "number": {"body": 1.5, "expires_at": -1},
    "far date": {"body": DatetimeMS(2**60), "stored_at": DatetimeMS(-(2**60))},
    "nested": {"body": {"$ref": "x", "$id": 1}, "barrier": {"$numberInt": "1"}},
}


@pytest.mark.parametrize("foreign", _FOREIGN)
def test_a_foreign_document_spoils_nothing_but_its_own_key(
    client: ResultClient, raw: Any, foreign: str
) -> None:
    client.store_many([_finished("a"), _finished("c")])
    raw.insert_one({"_id": f"{client.namespace}:b", **_FOREIGN[foreign]})

    found = client.load_many(["a", "b", "c", "d"])
    assert [found[0], found[2], found[3]] == [_finished("a"), _finished("c"), None]
    assert isinstance(found[1], CorruptRecordError)
    assert client.store_many([_finished("a"), _finished("b")]) == [False, True]
    assert client.load("b") == _finished("b")
    client.forget(["a", "b", "c"])


def test_the_harness_finds_and_removes_long_documents_too(
    server: MongoDBServer, backend: MongoBackend, record: RecordMaker, namespace: str
) -> None:
    harness = MongoHarness(Url.parse(server.url))
    kept = record("kept", bytes(10), expires=None)
    backend.store([record("long", bytes(2**20)), kept], _PATIENCE)

    names = {f"upshot/results/{record(each).key!r}" for each in ("long", "kept")}
    assert harness.raw_objects(namespace) == names
    assert {harness.ttl(name) is None for name in names} == {True, False}
    assert bytes(2**20) in harness.read_raw(f"upshot/results/{record('long').key!r}")
    harness.purge(namespace)
    assert harness.raw_objects(namespace) == set()
    harness.close()
