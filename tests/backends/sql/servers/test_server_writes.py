"""The guard, exact answers, exact keys and expiry, whatever is written at once."""

from __future__ import annotations

import random
import threading
import unicodedata
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from upshot import clock
from upshot.backend import StoredRecord
from upshot.broker import Action, QueuedMessage, Settlement
from upshot.errors import PayloadTooLargeError, ServiceRejectedError
from upshot.service import OpenService
from upshot.states import NEVER
from upshot.url import Url
from upshot_backends.sql.broker import SqlBroker
from upshot_backends.sql.results import SqlBackend
from upshot_backends.sql.sqlite.results import SqliteBackend

BackendOpener = Callable[..., SqlBackend]
BrokerOpener = Callable[..., SqlBroker]
RecordMaker = Callable[..., StoredRecord]
Run = Callable[..., list[tuple[object, ...]]]


def store(service: OpenService[SqlBackend], batch: Sequence[StoredRecord]) -> list[bool]:
    """Store a batch with retries, as clients do."""
    return list(service.call(lambda backend, seconds: backend.store(batch, seconds)))


def delete(service: OpenService[SqlBackend], keys: Sequence[str]) -> None:
    """Delete keys with retries, as clients do."""
    service.call(lambda backend, seconds: backend.delete(keys, seconds))


def opened(backend: SqlBackend) -> OpenService[SqlBackend]:
    """Put the retries before a backend that is open."""
    return OpenService(lambda: backend, url=backend.database.url, timeout=60.0)


def in_threads(work: Sequence[Callable[[], None]]) -> None:
    """Run everything at once, and raise what any of it raised."""
    together, failures = threading.Barrier(len(work)), list[BaseException]()

    def run(one: Callable[[], None]) -> None:
        try:
            together.wait(30.0)
            one()
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=run, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def test_answers_and_bodies_are_those_of_sqlite_for_any_batches(
    backend: SqlBackend, record: RecordMaker, tmp_path: Path
) -> None:
    oracle = SqliteBackend(Url.parse(f"sqlite:///{tmp_path}/oracle.db"))
    random_numbers, keys = random.Random(7), [f"k{number}" for number in range(6)]
    for step in range(150):
        batch = [
            record(
                random_numbers.choice(keys),
                b"%d-%d" % (step, place),
                rank=(rank := random_numbers.choice([16, 17, 20, 31, 33])),
                barrier=random_numbers.choice([rank, rank, rank + 1, NEVER]),
                expires=random_numbers.choice([None, 3600.0]),
            )
            for place in range(random_numbers.choice([1, 1, 2, 5, 9]))
        ]
        if step % 10 == 9:
            gone = random_numbers.sample(keys, 3)
            backend.delete(gone, 10.0)
            oracle.delete(gone, 10.0)

        assert list(backend.store(batch, 10.0)) == list(oracle.store(batch, 10.0))
        assert backend.load(keys, 10.0) == oracle.load(keys, 10.0)
    oracle.close()


@pytest.mark.parametrize("beside", [[], ["other"]], ids=["alone", "in a batch"])
def test_the_same_progress_stored_again_is_applied_each_time(
    backend: SqlBackend, record: RecordMaker, beside: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    moment = clock.now()
    monkeypatch.setattr(backend.database, "now", lambda: moment)  # so that no column changes
    batch = [record(key, b"same", rank=20, barrier=20) for key in ["k", *beside]]

    answers = [list(backend.store(batch, 10.0)) for _ in range(3)]

    assert answers == [[True] * len(batch)] * 3


@pytest.mark.parametrize("size", [1, 5], ids=["alone", "in a batch"])
def test_of_sixteen_threads_that_race_for_an_id_exactly_one_wins(
    backend: SqlBackend, open_backend: BackendOpener, record: RecordMaker, size: int
) -> None:
    backends = [backend, *(open_backend() for _ in range(3))]
    backend.load(["k"], 10.0)
    won: list[list[bool]] = []

    for race in range(10):
        keys = [f"{race}-{place}" for place in range(size)]
        won.clear()
        in_threads(
            [
                partial(race_for, won, opened(backends[number % 4]), [record(key) for key in keys])
                for number in range(16)
            ]
        )

        assert [sum(column) for column in zip(*won, strict=True)] == [1] * size


def race_for(
    won: list[list[bool]], service: OpenService[SqlBackend], batch: list[StoredRecord]
) -> None:
    """Store a batch, and note which records applied."""
    won.append(store(service, batch))


def test_batches_that_overlap_in_any_order_all_succeed(
    open_backend: BackendOpener, record: RecordMaker
) -> None:
    keys = [f"k{number}" for number in range(30)]

    def work(service: OpenService[SqlBackend], numbers: random.Random) -> None:
        for step in range(20):
            chosen = numbers.sample(keys, 15)
            assert all(store(service, [record(key, rank=20, barrier=20) for key in chosen]))
            if step % 5 == 4:
                delete(service, chosen)

    services = [opened(open_backend()) for _ in range(8)]
    in_threads(
        [partial(work, service, random.Random(seed)) for seed, service in enumerate(services)]
    )


@pytest.mark.parametrize(
    "pair",
    [
        ("key", "KEY"),
        ("key", "key "),
        ("key ", "key  "),
        ("straße", "strasse"),
        (unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é")),
        ("a", "á"),
        ("a%", "a_"),
        ("{}'\"\\", "{}'\"\\\\"),
        ("%s%%(key)s", "%s%(key)s"),
        ("x" * 1024, "x" * 1023 + "y"),
        ("ä" * 512, "ä" * 511 + "ö"),
    ],
    ids=ascii,
)
def test_keys_are_told_apart_by_each_byte(
    backend: SqlBackend, record: RecordMaker, pair: tuple[str, str]
) -> None:
    one, other = pair

    assert backend.store([record(one, b"one")], 10.0) == [True]
    assert backend.load([other], 10.0) == [None]
    assert backend.store([record(other, b"other"), record(one, b"late")], 10.0) == [True, False]
    assert backend.load([other, one], 10.0) == [b"other", b"one"]
    assert sorted(backend.scan("", 10.0)) == sorted(pair)
    backend.delete([one], 10.0)
    assert backend.load([one, other], 10.0) == [None, b"other"]
    backend.delete([other], 10.0)


def test_keys_come_in_the_order_of_their_bytes(backend: SqlBackend, record: RecordMaker) -> None:
    keys = ["b", "B", "a", "ä", "~", "a b", "a-b", "\U0001f600", "\uffee"]
    backend.store([record(key) for key in keys], 10.0)

    assert list(backend.scan("", 10.0)) == sorted(keys, key=str.encode)
    assert list(backend.scan("a", 10.0)) == ["a", "a b", "a-b"]


def test_queues_are_told_apart_by_each_byte(broker: SqlBroker) -> None:
    names = ["q", "Q", "q ", "é", "e\u0301", "x" * 1000]
    broker.publish(
        [QueuedMessage(message_id=name, queue=name, body=b"") for name in names], (), 10.0
    )

    for name in names:
        (found,) = broker.fetch([name], limit=9, wait=0.0, lease=60.0, worker=name)
        assert (found.queue, found.message_id) == (name, name)
        assert broker.survey([name], 10.0)[name].workers == (name,)


def test_a_name_that_is_too_long_for_the_service_is_refused_for_good(broker: SqlBroker) -> None:
    long = random.Random(0).randbytes(10_000).hex()  # PostgreSQL would compress a simpler one
    message = QueuedMessage(message_id="m", queue=long, body=b"")

    with pytest.raises(ServiceRejectedError):
        broker.publish([message], (), 10.0)


def test_words_for_people_may_hold_anything(
    backend: SqlBackend, broker: SqlBroker, record: RecordMaker, run: Run, prefix: str
) -> None:
    broker.publish([QueuedMessage(message_id="m", queue="q", body=b"")], (), 10.0)
    (delivery,) = broker.fetch(["q"], limit=1, wait=0.0, lease=60.0, worker="w")
    words = "a\0b \udc80 \U0001f600 " + "long " * 20_000
    ended = Settlement(delivery=delivery, action=Action.BURY, reason=words)

    assert list(broker.settle([ended], 10.0)) == [True]
    ((reason,),) = run(f"SELECT reason FROM {prefix}dead_letters")
    assert reason == "a\N{REPLACEMENT CHARACTER}b ? \U0001f600 " + "long " * 20_000


def test_a_body_of_the_declared_maximum_is_kept(backend: SqlBackend, record: RecordMaker) -> None:
    size = min(backend.capabilities.max_record_bytes, 32 * 2**20)
    body = random.Random(0).randbytes(size)

    assert backend.store([record("k", body)], 60.0) == [True]
    assert backend.load(["k"], 60.0) == [body]


def test_nothing_is_nothing_and_an_empty_body_is_a_body(
    backend: SqlBackend, open_broker: BrokerOpener, record: RecordMaker
) -> None:
    broker = open_broker()
    empty = QueuedMessage(message_id="m", queue="q", body=b"")

    broker.publish([], [], 10.0)
    broker.publish([], [record("beside nothing", b"", rank=1, barrier=1)], 10.0)
    broker.publish([empty], [record("beside", b"", rank=1, barrier=1)], 10.0)
    backend.delete([], 10.0)
    assert list(backend.store([], 10.0)) == []
    assert list(backend.load([], 10.0)) == []
    assert backend.load(["beside nothing", "beside", "none"], 10.0) == [b"", b"", None]
    (found,) = broker.fetch(["q"], limit=9, wait=0.0, lease=60.0, worker="w")
    assert found.body == b""


def test_many_large_bodies_in_a_batch_are_kept(backend: SqlBackend, record: RecordMaker) -> None:
    bodies = [bytes([number]) * 3 * 2**20 for number in range(8)]
    batch = [record(f"{number}", body) for number, body in enumerate(bodies)]

    assert backend.store(batch, 60.0) == [True] * 8
    assert backend.load([each.key for each in batch], 60.0) == bodies


def test_a_statement_that_the_server_would_not_take_is_refused_before_it_is_sent(
    service: str, open_backend: BackendOpener, record: RecordMaker
) -> None:
    largest = 300 * 2**20 if service == "postgresql" else 13 * 2**20
    backend = open_backend()
    if service == "postgresql":
        assert backend.capabilities.max_record_bytes < largest  # the core refuses it
        return

    with pytest.raises(PayloadTooLargeError, match="max_allowed_packet"):
        backend.store([record("k", bytes(largest))], 30.0)
    assert backend.store([record("k")], 10.0) == [True]


def test_ten_thousand_keys_are_loaded_in_order(backend: SqlBackend, record: RecordMaker) -> None:
    keys = [f"{number}" for number in range(10_000)]
    for start in range(0, 10_000, 1000):
        backend.store([record(key, key.encode()) for key in keys[start : start + 1000]], 60.0)
    random.Random(1).shuffle(keys)

    assert backend.load([*keys, "unknown"], 60.0) == [*(key.encode() for key in keys), None]


def test_expired_records_are_swept_in_batches_and_only_they(
    backend: SqlBackend, open_backend: BackendOpener, record: RecordMaker, run: Run, prefix: str
) -> None:
    for start in range(0, 2500, 500):
        backend.store([record(f"{start + n}") for n in range(500)], 30.0)
    run(f"UPDATE {prefix}results SET expires_at = 1")
    open_backend().store([record("kept"), record("for ever", expires=None)], 10.0)
    swept: list[int] = []

    def work(service: OpenService[SqlBackend]) -> None:
        while count := service.call(lambda each, seconds: each.sweep(1000, seconds)):
            swept.append(count)

    in_threads([partial(work, opened(each)) for each in (backend, open_backend())])

    assert 1500 <= sum(swept) <= 2500  # the store that came before took up to 1000
    assert max(swept) <= 1000
    assert list(backend.scan("", 10.0)) == ["for ever", "kept"]
    assert run(f"SELECT COUNT(*) FROM {prefix}results") == [(2,)]


def test_what_expired_can_be_stored_anew(backend: SqlBackend, record: RecordMaker) -> None:
    for batch in ([record("a", b"old", expires=0.001)], [record("b", b"old", expires=0.001)] * 2):
        backend.store(batch, 10.0)
    clock.sleep(0.01)

    assert backend.load(["a", "b"], 10.0) == [None, None]
    assert backend.store([record("a", b"new", rank=1), record("b", b"new", rank=1)], 10.0) == [
        True,
        True,
    ]
    assert backend.load(["a", "b"], 10.0) == [b"new", b"new"]


def test_writers_sweep_what_nobody_reads(
    backend: SqlBackend, record: RecordMaker, run: Run, prefix: str
) -> None:
    for start in range(0, 3000, 500):
        backend.store([record(f"{start + n}", expires=0.001) for n in range(500)], 30.0)

    ((left,),) = run(f"SELECT COUNT(*) FROM {prefix}results")
    assert isinstance(left, int)
    assert left <= 1500
