"""Transactions, locks and trouble: what a write does when something is in its way."""

from __future__ import annotations

import fcntl
import resource
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from upshot import clock
from upshot.backend import StoredRecord
from upshot.broker import Action, QueuedMessage, Settlement
from upshot.errors import ServiceClosedError, ServiceRejectedError, ServiceUnavailableError
from upshot_backends.sql.sqlite.broker import SqliteBroker
from upshot_backends.sql.sqlite.gate import WriteGate
from upshot_backends.sql.sqlite.results import SqliteBackend

BackendOpener = Callable[..., SqliteBackend]
RecordMaker = Callable[..., StoredRecord]


def message(message_id: str = "m") -> QueuedMessage:
    return QueuedMessage(message_id=message_id, queue="q", body=b"body")


def unstorable(record: StoredRecord) -> StoredRecord:
    """Return a record that the driver refuses when it comes to it."""
    return record._replace(task_id="\udc80")


def test_a_batch_is_stored_as_a_whole_or_not_at_all(
    backend: SqliteBackend, record: RecordMaker
) -> None:
    batch = [record("a"), unstorable(record("b")), record("c")]

    with pytest.raises(UnicodeEncodeError):
        backend.store(batch, 5.0)
    assert backend.load(["a", "b", "c"], 5.0) == [None, None, None]
    assert backend.store([record("a")], 5.0) == [True]


def test_a_transaction_that_failed_locks_nobody_out(
    broker: SqliteBroker, open_backend: Callable[..., SqliteBackend], record: RecordMaker
) -> None:
    backend = open_backend()
    broken = record("a")._replace(body=cast("bytes", None))

    with pytest.raises(ServiceRejectedError) as kept:  # and all that its traceback holds
        broker.publish([message()], [broken], 5.0)
    assert backend.store([record("a")], 0.5) == [True]
    assert kept.value.__cause__ is not None


def test_an_exchange_is_one_transaction(
    monkeypatch: pytest.MonkeyPatch,
    broker: SqliteBroker,
    backend: SqliteBackend,
    record: RecordMaker,
) -> None:
    broker.publish([message("a"), message("b")], (), 5.0)
    (first,) = broker.fetch(["q"], limit=1, wait=0.0, lease=60.0, worker="w")
    entered: list[WriteGate] = []
    plain = WriteGate.enter

    def counted(gate: WriteGate, deadline: clock.Deadline) -> None:
        entered.append(gate)
        plain(gate, deadline)

    monkeypatch.setattr(WriteGate, "enter", counted)
    applied, ours, (found,) = broker.exchange(
        Settlement(delivery=first), record("r"), ["q"], lease=60.0, worker="w", timeout=5.0
    )

    assert (applied, ours, found.message_id, len(entered)) == (True, True, "b", 1)
    assert backend.load(["r"], 5.0) == [b"body"]


def test_a_batch_tells_which_of_its_records_applied(
    backend: SqliteBackend, record: RecordMaker
) -> None:
    backend.store([record("a", b"first")], 5.0)

    answers = backend.store(
        [record("b"), record("a"), record("c"), record("b", b"again"), record("d")], 5.0
    )

    assert answers == [True, False, True, False, True]
    assert backend.load(["a", "b", "c", "d"], 5.0) == [b"first", b"body", b"body", b"body"]


def test_messages_and_their_records_are_kept_together_or_not_at_all(
    broker: SqliteBroker, backend: SqliteBackend, record: RecordMaker
) -> None:
    with pytest.raises(UnicodeEncodeError):
        broker.publish([message("a")], [record("a"), unstorable(record("b"))], 5.0)
    lost = broker.survey(["q"], 5.0)["q"].ready, backend.load(["a"], 5.0)
    broker.publish([message("a")], [record("a")], 5.0)
    kept = broker.survey(["q"], 5.0)["q"].ready, backend.load(["a"], 5.0)

    assert lost == (0, [None])
    assert kept == (1, [b"body"])


def test_a_record_beside_a_message_obeys_the_guard(
    broker: SqliteBroker, backend: SqliteBackend, record: RecordMaker
) -> None:
    backend.store([record("a", b"ended")], 5.0)
    broker.publish([message("a")], [record("a", b"queued", rank=17, barrier=17)], 5.0)

    assert backend.load(["a"], 5.0) == [b"ended"]
    assert broker.survey(["q"], 5.0)["q"].ready == 1


def test_a_buried_message_keeps_its_body_and_the_reason(
    broker: SqliteBroker, raw: sqlite3.Connection
) -> None:
    broker.publish([message()], (), 5.0)
    (delivery,) = broker.fetch(["q"], limit=1, wait=0.0, lease=60.0, worker="w")
    broker.settle([Settlement(delivery=delivery, action=Action.BURY, reason="bad")], 5.0)

    found = raw.execute("SELECT queue, body, deliveries, reason FROM upshot_dead_letters")
    assert found.fetchall() == [("q", b"body", 1, "bad")]


@pytest.mark.alone
def test_a_write_waits_for_a_foreign_lock_as_long_as_it_may(
    backend: SqliteBackend, record: RecordMaker, raw: sqlite3.Connection
) -> None:
    backend.store([record("a")], 5.0)
    raw.execute("BEGIN IMMEDIATE")
    began = clock.monotonic()

    with pytest.raises(ServiceUnavailableError, match="locked"):
        backend.store([record("b")], 0.3)
    assert 0.25 <= clock.monotonic() - began < 1.0
    assert backend.load(["a"], 5.0) == [b"body"]
    raw.execute("COMMIT")
    assert backend.store([record("b")], 5.0) == [True]


@pytest.mark.alone
def test_a_write_waits_for_another_processs_turn_as_long_as_it_may(
    backend: SqliteBackend, record: RecordMaker, path: Path
) -> None:
    backend.store([record("a")], 5.0)
    began = clock.monotonic()

    with open(f"{path}.lock", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ServiceUnavailableError, match="another process"):
            backend.store([record("b")], 0.3)
    assert 0.25 <= clock.monotonic() - began < 1.0
    assert backend.store([record("b")], 5.0) == [True]


def test_a_full_disk_is_trouble_that_passes(
    backend: SqliteBackend, record: RecordMaker, raw: sqlite3.Connection
) -> None:
    backend.store([record("a")], 5.0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, hard))
    try:
        with pytest.raises(ServiceUnavailableError):
            backend.store([record("b", bytes(2**21))], 5.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert backend.load(["a", "b"], 5.0) == [b"body", None]
    assert backend.store([record("b", bytes(2**21))], 5.0) == [True]
    assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_expired_records_are_swept_by_those_that_store(
    backend: SqliteBackend, record: RecordMaker, raw: sqlite3.Connection
) -> None:
    short = [record(f"short{number}", expires=0.05) for number in range(300)]
    backend.store(short, 5.0)
    deadline = clock.Deadline(5.0)
    while backend.load(["short299"], 5.0) != [None]:
        assert not deadline.expired
        clock.sleep(0.005)
    backend.store([record(f"long{number}", expires=None) for number in range(500)], 5.0)

    assert raw.execute("SELECT count(*) FROM upshot_results").fetchone() == (500,)


def test_a_scan_finds_every_key_with_its_prefix_and_no_other(
    backend: SqliteBackend, record: RecordMaker
) -> None:
    ours = {f"a:{number}" for number in range(2500)} | {"a:", "a:\U0010ffff", "a:ä%_"}
    theirs = {"a", "a;", "ab:1", "A:1", "b:1", "a#1"}
    backend.store([record(key) for key in ours | theirs], 5.0)

    found = list(backend.scan("a:", 5.0))

    assert len(found) == len(ours)
    assert set(found) == ours


def test_ten_thousand_keys_are_loaded_in_order(backend: SqliteBackend, record: RecordMaker) -> None:
    backend.store([record(f"k{number}", b"%d" % number) for number in range(0, 10_000, 2)], 5.0)

    found = backend.load([f"k{number}" for number in range(10_000)], 5.0)

    assert found == [b"%d" % number if number % 2 == 0 else None for number in range(10_000)]


def test_close_gives_back_every_file_and_refuses_what_comes_later(
    open_backend: BackendOpener,
    broker: SqliteBroker,
    record: RecordMaker,
    open_files: Callable[[], list[str]],
) -> None:
    backend = open_backend()
    backend.store([record("k")], 5.0)
    listener = backend.listen(5.0)
    assert listener is not None
    listener.wait(0.0)
    broker.fetch(["q"], limit=1, wait=0.0, lease=60.0, worker="w")
    before = open_files()
    backend.close()
    broker.close()

    assert before
    assert open_files() == []
    with pytest.raises(ServiceClosedError):
        backend.load(["k"], 5.0)
