"""Records that do not fit in one item: never mixed, never half, nothing left of them."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from upshot.backend import StoredRecord
from upshot.client import ResultClient
from upshot.errors import CorruptRecordError
from upshot.record import Payload, Record
from upshot.url import Url
from upshot_backends.memcached import layout
from upshot_backends.memcached.layout import PART
from upshot_backends.memcached.results import MemcachedBackend
from upshot_conformance.harnesses.memcached import MemcachedHarness
from upshot_conformance.servers import MemcachedServer

BackendOpener = Callable[..., MemcachedBackend]
RecordMaker = Callable[..., StoredRecord]


@pytest.fixture
def client(server: MemcachedServer, namespace: str) -> Iterator[ResultClient]:
    url = Url.parse(server.url)
    with ResultClient(lambda: MemcachedBackend(url), url=url, namespace=namespace) as opened:
        yield opened


def _noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def _large(task_id: str, seed: int = 0) -> Record:
    return Record(task_id=task_id, state="SUCCESS", outcome=Payload("x", _noise(3 * PART, seed)))


def _parts(harness: MemcachedHarness, namespace: str) -> list[str]:
    """Return the keys of all parts, in the order of their numbers."""
    keys = (name.partition("/")[2] for name in harness.raw_objects(namespace))
    return sorted(key for key in keys if "/" in key)


@pytest.mark.parametrize("size", [PART - 1, PART, PART + 1, 2 * PART, 2 * PART + 1, 16 * 2**20])
def test_a_record_of_any_size_comes_back(
    open_backend: BackendOpener, fragile: MemcachedServer, record: RecordMaker, size: int
) -> None:
    backend = open_backend(fragile.url)
    body = _noise(size)

    assert backend.store([record("a", body), record("b")], 60.0) == [True, True]
    assert backend.load([record(name).key for name in "ba"], 60.0) == [b"body", body]


def test_all_parts_expire_and_none_before_the_record(
    backend: MemcachedBackend, record: RecordMaker, harness: MemcachedHarness, namespace: str
) -> None:
    for expires, longest in ((100.0, 100.0), (31 * 86_400.0, 31 * 86_400.0 + 60)):
        backend.store([record("a", _noise(3 * PART), expires=expires)], 30.0)
        left = {name: harness.ttl(name) for name in harness.raw_objects(namespace)}

        assert len(left) == 4
        for each in left.values():
            assert each is not None
            assert expires - 60 < each <= longest


# -- integrity ------------------------------------------------------------------------------


def _delete(raw: Any, key: str) -> None:
    raw.delete(key)


def _overwrite(raw: Any, key: str) -> None:
    raw.set(key, bytes(len(raw.get(key))))


def _shorten(raw: Any, key: str) -> None:
    raw.set(key, raw.get(key)[:-1])


def _lengthen(raw: Any, key: str) -> None:
    raw.append(key, b"x")


@pytest.mark.parametrize("damage", [_delete, _overwrite, _shorten, _lengthen])
@pytest.mark.parametrize("number", [0, 1, -1])
def test_a_damaged_part_is_noticed_for_its_id_alone(
    client: ResultClient,
    raw: Any,
    harness: MemcachedHarness,
    namespace: str,
    damage: Callable[[Any, str], None],
    number: int,
) -> None:
    client.store(_large("damaged"))
    damage(raw, _parts(harness, namespace)[number])
    client.store(_large("whole"))

    first, second = client.load_many(["damaged", "whole"])

    assert isinstance(first, CorruptRecordError)
    assert second == _large("whole")
    with pytest.raises(CorruptRecordError):
        client.wait("damaged", timeout=60)  # at once: nothing better can come
    assert not client.store(_large("damaged", seed=1))  # it has ended, whatever is left of it
    client.forget(["damaged", "whole"])
    assert harness.raw_objects(namespace) == set()
    assert client.store(_large("damaged", seed=1))


def test_parts_of_another_record_are_noticed(
    backend: MemcachedBackend,
    raw: Any,
    record: RecordMaker,
    harness: MemcachedHarness,
    namespace: str,
) -> None:
    backend.store([record("a", _noise(2 * PART))], 30.0)
    mine = _parts(harness, namespace)
    backend.store([record("b", _noise(2 * PART, seed=1))], 30.0)
    (others, *_) = sorted(set(_parts(harness, namespace)) - set(mine))
    raw.set(mine[0], raw.get(others))

    (found,) = backend.load([record("a").key], 30.0)

    assert isinstance(found, bytes)
    assert len(found) < 100


@pytest.mark.parametrize(
    "numbers",
    [
        (b"g" * 16, 2**63, 2**16, 0),
        (b"g" * 16, 2**20, 1, 0),
        (b"g" * 16, 2**20, 0, 0),
        (b"g" * 16, layout.MAX_RECORD + 1, PART, 0),
        (b"\r\nflush_all\r\nxx", 2 * PART, PART, 0),
        (b"g h\x00\xff" + bytes(11), 2 * PART, PART, 0),
        (b"g" * 16, 2 * PART, PART, 0),
        (b"g" * 16, 0, PART, 0),
    ],
)
def test_a_forged_head_takes_neither_memory_nor_the_connection(
    backend: MemcachedBackend,
    raw: Any,
    record: RecordMaker,
    numbers: tuple[bytes, int, int, int],
) -> None:
    backend.store([record("other")], 5.0)
    forged = layout.head(layout.Parts(*numbers), barrier=5, moment=float("inf"))
    raw.set(record("a").key, forged)

    found, other = backend.load([record("a").key, record("other").key], 5.0)

    assert other == b"body"
    assert isinstance(found, bytes)
    assert len(found) < 100
    assert backend.store([record("a", b"mine")], 5.0) == [True]
    backend.delete([record("a").key], 5.0)
    assert backend.load([record("other").key], 5.0) == [b"body"]


def test_a_head_without_its_parts_is_replaced_by_what_comes_later(
    backend: MemcachedBackend,
    raw: Any,
    record: RecordMaker,
    harness: MemcachedHarness,
    namespace: str,
) -> None:
    backend.store([record("a", _noise(2 * PART), rank=20)], 30.0)
    for key in _parts(harness, namespace):
        raw.delete(key)

    assert backend.store([record("a", b"end", rank=31, terminal=True)], 5.0) == [True]
    assert backend.load([record("a").key], 5.0) == [b"end"]


# -- nothing is left ------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(3, 2), (3, 0), (0, 3), (2, 2, 2, 0)])
def test_a_replaced_record_takes_its_parts_along(
    backend: MemcachedBackend,
    record: RecordMaker,
    harness: MemcachedHarness,
    namespace: str,
    sizes: tuple[int, ...],
) -> None:
    for rank, parts in enumerate(sizes, 20):
        body = _noise(max(1, parts * PART), seed=rank)
        assert backend.store([record("a", body, rank=rank)], 30.0) == [True]
        assert backend.load([record("a").key], 30.0) == [body]
        assert len(harness.raw_objects(namespace)) == 1 + parts
    backend.delete([record("a").key], 30.0)
    assert harness.raw_objects(namespace) == set()


def test_an_expired_record_takes_its_parts_along_when_it_is_replaced(
    backend: MemcachedBackend,
    raw: Any,
    record: RecordMaker,
    harness: MemcachedHarness,
    namespace: str,
) -> None:
    backend.store([record("a", _noise(2 * PART), terminal=True, expires=None)], 30.0)
    key = record("a").key
    item = layout.read(raw.get(key), now=0.0)
    assert item.parts is not None
    raw.set(key, layout.head(item.parts, barrier=item.barrier, moment=1.0))  # 1970

    assert backend.load([key], 5.0) == [None]
    assert backend.store([record("a", b"next", rank=1)], 5.0) == [True]
    assert len(harness.raw_objects(namespace)) == 1


def test_a_refused_record_leaves_no_parts(
    backend: MemcachedBackend, record: RecordMaker, harness: MemcachedHarness, namespace: str
) -> None:
    backend.store([record("a", b"end", terminal=True)], 5.0)

    assert backend.store([record("a", _noise(2 * PART), rank=99)], 30.0) == [False]
    assert len(harness.raw_objects(namespace)) == 1


def test_a_batch_stores_only_the_last_record_of_a_key(
    backend: MemcachedBackend, record: RecordMaker, harness: MemcachedHarness, namespace: str
) -> None:
    batch = [record("a", _noise(2 * PART, seed), rank=20 + seed) for seed in range(3)]

    assert backend.store(batch, 30.0) == [True] * 3
    assert backend.load([record("a").key], 30.0) == [batch[-1].body]
    assert len(harness.raw_objects(namespace)) == 3


def test_a_hundred_racing_writers_leave_one_record_and_no_part_beside_it(
    open_backend: BackendOpener, fragile: MemcachedServer, record: RecordMaker, namespace: str
) -> None:
    backends = [open_backend(fragile.url) for _ in range(2)]
    barrier = threading.Barrier(100)
    applied: list[int] = []

    def write(number: int) -> None:
        mine = record("a", b"%03d" % number + bytes(PART), terminal=True, rank=31)
        barrier.wait()
        if backends[number % 2].store([mine], 90.0) == [True]:
            applied.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (found,) = backends[0].load([record("a").key], 30.0)
    looking = MemcachedHarness(Url.parse(fragile.url))

    assert isinstance(found, bytes)
    assert [b"%03d" % number for number in applied] == [found[:3]]
    assert len(looking.raw_objects(namespace)) == 3
    backends[0].delete([record("a").key], 30.0)
    assert looking.raw_objects("") == set()
    looking.close()


def test_writers_and_forgetters_that_race_leave_nothing_when_all_is_forgotten(
    open_backend: BackendOpener, fragile: MemcachedServer, record: RecordMaker, namespace: str
) -> None:
    backend = open_backend(fragile.url)
    bodies = {_noise(PART + 1, seed) for seed in range(3)}
    wrong: list[object] = []

    def write(body: bytes) -> None:
        for _ in range(40):
            backend.store([record("a", body)], 60.0)

    def forget() -> None:
        for _ in range(120):
            backend.delete([record("a").key], 60.0)

    def read() -> None:
        for _ in range(120):
            (found,) = backend.load([record("a").key], 60.0)
            if found is not None and found not in bodies:
                wrong.append(found)

    threads = [threading.Thread(target=write, args=(body,)) for body in bodies]
    threads += [threading.Thread(target=each) for each in (forget, forget, read, read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    backend.delete([record("a").key], 30.0)
    looking = MemcachedHarness(Url.parse(fragile.url))

    assert wrong == []
    assert looking.raw_objects("") == set()
    looking.close()
