"""Results on memcached: the guard under races, batches, expiry, refusals, hostile ids."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from upshot import clock
from upshot.backend import StoredRecord
from upshot.client import ResultClient
from upshot.clock import Deadline
from upshot.errors import (
    CorruptRecordError,
    PayloadTooLargeError,
    ServiceRejectedError,
    ServiceUnavailableError,
)
from upshot.record import Payload, Record
from upshot.retrying import translate
from upshot.url import Url
from upshot_backends.memcached.driver import (
    DRIVER_ERRORS,
    MemcacheClientError,
    MemcacheServerError,
    TimedSocket,
)
from upshot_backends.memcached.layout import MAX_KEY, exptime
from upshot_backends.memcached.results import MemcachedBackend
from upshot_conformance.harnesses.memcached import MemcachedHarness
from upshot_conformance.servers import MemcachedServer

BackendOpener = Callable[..., MemcachedBackend]
RecordMaker = Callable[..., StoredRecord]

_DAY = 86_400.0


@pytest.fixture
def client(server: MemcachedServer, namespace: str) -> Iterator[ResultClient]:
    url = Url.parse(server.url)
    with ResultClient(lambda: MemcachedBackend(url), url=url, namespace=namespace) as opened:
        yield opened


def _finished(task_id: str, body: bytes = b"1") -> Record:
    return Record(task_id=task_id, state="SUCCESS", outcome=Payload("json", body))


# -- the guard ------------------------------------------------------------------------------


def test_of_eight_racing_terminal_writers_exactly_one_wins(
    open_backend: BackendOpener, record: RecordMaker
) -> None:
    backends = [open_backend() for _ in range(8)]
    barrier = threading.Barrier(8)
    won: list[tuple[str, bytes]] = []

    def write(number: int) -> None:
        body = b"%d" % number
        for round_number in range(50):
            mine = record(str(round_number), body, terminal=True, rank=31)
            late = record(str(round_number), b"late", rank=20)
            barrier.wait()
            if backends[number].store([mine, late], 30.0)[0]:
                won.append((mine.key, body))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    keys = [record(str(round_number)).key for round_number in range(50)]
    stored = backends[0].load(keys, 5.0)

    assert Counter(key for key, _ in won) == dict.fromkeys(keys, 1)
    assert dict(won) == dict(zip(keys, stored, strict=True))


def test_writers_that_all_apply_lose_no_answer(
    open_backend: BackendOpener, record: RecordMaker
) -> None:
    backends = [open_backend() for _ in range(6)]
    applied: list[bool] = []

    def write(backend: MemcachedBackend) -> None:
        for _ in range(50):  # one rank, which is its own barrier: every write applies
            applied.extend(backend.store([record("a")], 30.0))

    threads = [threading.Thread(target=write, args=(each,)) for each in backends]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert applied == [True] * 300


def test_a_refused_record_changes_nothing_not_even_the_expiry(
    backend: MemcachedBackend, raw: Any, record: RecordMaker, harness: MemcachedHarness
) -> None:
    first = record("a", b"first", terminal=True, expires=100.0)
    backend.store([first], 5.0)
    before = raw.gets(first.key)

    assert backend.store([record("a", b"second", rank=31, expires=None)], 5.0) == [False]
    assert raw.gets(first.key) == before  # the CAS number too


def test_one_key_twice_in_a_batch_obeys_their_order(
    backend: MemcachedBackend, record: RecordMaker
) -> None:
    batch = [
        record("a", b"1", rank=20),
        record("b", b"2", rank=20),
        record("a", b"3", rank=19),
        record("a", b"4", rank=30, terminal=True),
        record("a", b"5", rank=99, terminal=True),
        record("b", b"6", rank=20),
    ]

    assert backend.store(batch, 5.0) == [True, True, False, True, False, True]
    assert backend.load([record("a").key, record("b").key], 5.0) == [b"4", b"6"]
    assert backend.store(batch, 5.0) == [False, True, False, False, False, True]


@pytest.mark.parametrize("foreign", [b"", b"x", b"some text of somebody else", b"upP1" + bytes(44)])
def test_what_is_no_record_does_not_keep_a_result_from_being_stored(
    backend: MemcachedBackend, raw: Any, record: RecordMaker, foreign: bytes
) -> None:
    key = record("a").key
    raw.set(key, foreign)

    assert (
        backend.store([record("b"), record("a", b"mine", rank=1), record("c")], 5.0) == [True] * 3
    )
    assert backend.load([key], 5.0) == [b"mine"]


def test_foreign_bytes_are_corrupt_for_their_id_alone_and_can_be_forgotten(
    client: ResultClient, raw: Any, namespace: str, harness: MemcachedHarness
) -> None:
    client.store(_finished("fine"))
    for number, foreign in enumerate((b"", b"garbage", b"upW1", b"upW1" + bytes(30))):
        raw.set(f"{namespace}:bad{number}", foreign)
    ids = ["bad0", "fine", "bad1", "bad2", "bad3", "unknown"]

    found = client.load_many(ids)

    assert [type(each) for each in found] == [
        CorruptRecordError,
        Record,
        CorruptRecordError,
        CorruptRecordError,
        type(None),  # its moment of expiry, 0, is long past
        type(None),
    ]
    client.forget(ids)
    assert harness.raw_objects(namespace) == set()


# -- batches --------------------------------------------------------------------------------


def test_a_batch_of_many_records_is_taken_whole(
    backend: MemcachedBackend, record: RecordMaker, harness: MemcachedHarness, namespace: str
) -> None:
    batch = [record(str(i), b"%d" % i) for i in range(20_000)]
    keys = [item.key for item in batch]

    assert backend.store(batch, 60.0) == [True] * 20_000
    assert backend.load(keys, 60.0) == [item.body for item in batch]
    backend.delete(keys, 60.0)
    assert harness.raw_objects(namespace) == set()


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets the length of everything that is sent."""
    lengths: list[int] = []
    sendall = TimedSocket.sendall

    def counted(self: TimedSocket, data: bytes) -> None:
        lengths.append(len(data))
        sendall(self, data)

    monkeypatch.setattr(TimedSocket, "sendall", counted)
    return lengths


def test_a_record_is_stored_read_and_forgotten_in_one_round_trip_each(
    backend: MemcachedBackend, record: RecordMaker, raw: Any, writes: list[int]
) -> None:
    one = record("a")
    backend.load([one.key], 30.0)  # opens the connection
    for call in (
        lambda: backend.store([one], 30.0),
        lambda: backend.load([one.key], 30.0),
        lambda: backend.delete([one.key], 30.0),
    ):
        del writes[:]
        call()
        assert len(writes) == 1
    assert raw.get(one.key) is None


def test_a_thousand_records_take_few_writes(
    backend: MemcachedBackend, record: RecordMaker, writes: list[int]
) -> None:
    for rank in (20, 21):  # over nothing, and over what is there
        batch = [record(str(i), bytes(200), rank=rank) for i in range(1000)]
        del writes[:]
        assert backend.store(batch, 30.0) == [True] * 1000
        assert len(writes) <= 10  # one `gets`, and the rest in writes of 64 KiB
    del writes[:]
    backend.load([item.key for item in batch], 30.0)
    assert len(writes) == 1
    del writes[:]
    backend.delete([item.key for item in batch], 30.0)
    assert len(writes) <= 5


@pytest.mark.parametrize(("count", "size", "more"), [(30, 900_000, 10), (200, 60_000, 60_000)])
def test_large_answers_do_not_stop_the_commands_behind_them(
    open_backend: BackendOpener,
    fragile: MemcachedServer,
    record: RecordMaker,
    count: int,
    size: int,
    more: int,
) -> None:
    backend = open_backend(fragile.url)
    old = [record(str(i), bytes(size), rank=20) for i in range(count)]
    new = [record(str(i), bytes(more), rank=21) for i in range(count)]

    assert backend.store(old, 60.0) == [True] * count
    assert backend.store(new, 60.0) == [True] * count
    assert backend.load([item.key for item in new], 60.0) == [bytes(more)] * count


# -- expiry ---------------------------------------------------------------------------------


def test_a_record_lives_a_fraction_of_a_second_and_is_gone_for_everybody(
    backend: MemcachedBackend, open_backend: BackendOpener, record: RecordMaker
) -> None:
    began = clock.now()
    first = record("a", b"first", terminal=True, expires=0.3)
    assert backend.store([first], 5.0) == [True]
    deadline = Deadline(20.0)
    while backend.load([first.key], 5.0) != [None] and not deadline.expired:
        clock.sleep(0.005)

    assert clock.now() >= began + 0.3  # not a moment earlier, whatever memcached's clock says
    assert open_backend().load([first.key], 5.0) == [None]
    assert backend.store([record("a", b"second", rank=1)], 5.0) == [True]
    assert backend.load([first.key], 5.0) == [b"second"]


@pytest.mark.parametrize("expires", [1e-9, 0.05, 0.999, 1.0, 1.001, 59.5, 30 * _DAY - 1])
def test_the_server_drops_an_item_soon_after_its_record_expired(
    backend: MemcachedBackend,
    record: RecordMaker,
    harness: MemcachedHarness,
    namespace: str,
    expires: float,
) -> None:
    backend.store([record("a", expires=expires)], 5.0)
    names = harness.raw_objects(namespace)

    left = [harness.ttl(name) for name in names]

    assert len(left) == 1
    assert all(each is not None and each <= expires + 2 for each in left)


@pytest.mark.parametrize("expires", [30 * _DAY, 30 * _DAY + 1, 31 * _DAY, 2 * 365 * _DAY])
def test_more_than_thirty_days_are_no_date_in_the_past(
    backend: MemcachedBackend,
    record: RecordMaker,
    harness: MemcachedHarness,
    namespace: str,
    expires: float,
) -> None:
    assert backend.store([record("a", expires=expires)], 5.0) == [True]
    (name,) = harness.raw_objects(namespace)
    left = harness.ttl(name)

    assert backend.load([record("a").key], 5.0) == [b"body"]
    assert left is not None
    assert expires - 60 < left < expires + 60  # a loaded machine needs a moment between the two


@pytest.mark.parametrize("expires", [None, 100 * 365 * _DAY, 1e15, float("inf")])
def test_what_memcached_cannot_count_to_is_left_to_the_record(
    backend: MemcachedBackend,
    record: RecordMaker,
    harness: MemcachedHarness,
    namespace: str,
    expires: float | None,
) -> None:
    assert backend.store([record("a", expires=expires)], 5.0) == [True]
    (name,) = harness.raw_objects(namespace)

    assert harness.ttl(name) is None
    assert backend.load([record("a").key], 5.0) == [b"body"]


@pytest.mark.parametrize("expires", [31 * _DAY, 100 * 365 * _DAY])
def test_the_record_expires_by_itself_however_late_that_is(
    backend: MemcachedBackend,
    record: RecordMaker,
    monkeypatch: pytest.MonkeyPatch,
    expires: float,
) -> None:
    backend.store([record("a", terminal=True, expires=expires)], 5.0)
    really = clock.now
    monkeypatch.setattr(clock, "now", lambda: really() + expires - 60)
    assert backend.load([record("a").key], 5.0) == [b"body"]

    monkeypatch.setattr(clock, "now", lambda: really() + expires)
    assert backend.load([record("a").key], 5.0) == [None]
    assert backend.store([record("a", b"next", rank=1)], 5.0) == [True]


def test_an_expiry_is_rounded_up_and_never_zero() -> None:
    now = 1_800_000_000.5

    assert [exptime(each, now) for each in (None, 1e-9, 1.0, 1.5, 30 * _DAY - 2)] == [
        0,
        3,
        3,
        4,
        2_592_000,
    ]
    assert exptime(30 * _DAY - 1, now) == 1_800_000_001 + 2_592_001
    assert exptime(31 * _DAY, now) == 1_800_000_001 + 31 * 86_400 + 2
    assert exptime(20 * 365 * _DAY, now) == 0  # 2047: above what memcached's parser takes


# -- refusals -------------------------------------------------------------------------------


def test_a_server_without_cas_is_refused_for_good(
    open_backend: BackendOpener, record: RecordMaker
) -> None:
    with MemcachedServer(arguments=["-C"]) as server:
        backend = open_backend(server.url)
        backend.store([record("a", terminal=True)], 5.0)

        with pytest.raises(MemcacheClientError, match="-C") as refused:
            backend.store([record("a", rank=99)], 5.0)
        url = Url.parse(server.url)
        assert isinstance(translate(refused.value, DRIVER_ERRORS, url), ServiceRejectedError)


def test_a_server_of_smaller_items_refuses_for_good_and_keeps_what_it_has(
    open_backend: BackendOpener, record: RecordMaker
) -> None:
    with MemcachedServer(arguments=["-I", "512k"]) as server:
        backend = open_backend(server.url)
        backend.store([record("a", b"old")], 5.0)

        for size in (700_000, 3_000_000):  # in one item, in parts
            with pytest.raises(MemcacheClientError, match="-I") as refused:
                backend.store([record("a", bytes(size), rank=21)], 5.0)
            assert backend.load([record("a").key], 5.0) == [b"old"]
        url = Url.parse(server.url)
        assert isinstance(translate(refused.value, DRIVER_ERRORS, url), ServiceRejectedError)


def test_a_full_server_that_may_not_evict_refuses_for_now_and_is_left_clean(
    open_backend: BackendOpener, record: RecordMaker, namespace: str
) -> None:
    with MemcachedServer(megabytes=8, arguments=["-M"]) as server:
        backend = open_backend(server.url)
        url = Url.parse(server.url)

        with pytest.raises(MemcacheServerError, match="memory") as refused:
            backend.store([record("a", bytes(16 * 2**20))], 30.0)
        assert isinstance(translate(refused.value, DRIVER_ERRORS, url), ServiceUnavailableError)
        looking = MemcachedHarness(url)
        assert looking.raw_objects(namespace) == set()
        looking.close()
        assert backend.store([record("a")], 5.0) == [True]


def test_the_longest_record_is_kept_and_a_longer_one_refused(
    fragile: MemcachedServer, namespace: str
) -> None:
    url = Url.parse(fragile.url)
    with ResultClient(lambda: MemcachedBackend(url), url=url, namespace=namespace) as client:
        limit = client.capabilities.max_record_bytes
        overhead = len(_finished("a", bytes(limit)).encode()) - limit
        longest = _finished("a", bytes(limit - overhead))
        assert len(longest.encode()) == limit

        assert client.store(longest)
        assert client.load("a") == longest
        with pytest.raises(PayloadTooLargeError):
            client.store(_finished("b", bytes(limit - overhead + 1)))


# -- ids ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "task_id",
    ["x" * 255, "é" * 127, "a b", " ", "a\u00a0b", "a\u2028b", "🦀", "a:b#c/d", "%20", "x" * 200],
)
def test_any_id_is_stored_under_a_key_that_memcached_takes(
    client: ResultClient, harness: MemcachedHarness, namespace: str, task_id: str
) -> None:
    body = bytes(3 * 2**20)  # the keys of parts are longer
    assert client.store(_finished(task_id, body))
    assert client.load(task_id) == _finished(task_id, body)
    assert client.load(task_id[:-1] + "?") is None
    assert len(harness.raw_objects(namespace)) == 5

    client.forget([task_id])
    assert harness.raw_objects(namespace) == set()


@pytest.mark.parametrize("namespace", ["é" * 64, "🦀" * 64, "a b\n#:/"])
def test_any_namespace_is_taken(
    server: MemcachedServer, namespace: str, harness: MemcachedHarness
) -> None:
    url = Url.parse(server.url)
    before = harness.raw_objects("")
    with ResultClient(lambda: MemcachedBackend(url), url=url, namespace=namespace) as client:
        for task_id in ("a", "x" * 255):
            assert client.store(_finished(task_id, bytes(2 * 2**20)))
            assert client.load(task_id) == _finished(task_id, bytes(2 * 2**20))
        client.forget(["a", "x" * 255])
    assert not harness.raw_objects("") - before  # what was there may have expired


def test_the_longest_key_leaves_room_for_its_parts(
    backend: MemcachedBackend, record: RecordMaker, namespace: str
) -> None:
    name = "k" * (MAX_KEY - len(namespace) - 1)
    body = bytes(16 * 2**20)

    assert backend.store([record(name, body)], 30.0) == [True]
    assert backend.load([record(name).key], 30.0) == [body]
    backend.delete([record(name).key], 30.0)


@pytest.mark.parametrize("key", ["", "a b", "a\r\nset x 0 0 1\r\nx", "é", "k" * 251, "a\x7f"])
def test_no_key_can_smuggle_a_command(backend: MemcachedBackend, raw: Any, key: str) -> None:
    hooks: list[Callable[[], object]] = [
        lambda: backend.load([key], 5.0),
        lambda: backend.delete([key], 5.0),
    ]
    for hook in hooks:
        with pytest.raises(MemcacheClientError):
            hook()
    assert raw.get("x") is None
