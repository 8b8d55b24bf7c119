"""Records that are out of date soon: held back for a moment, and sent only if nothing follows."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from upshot import clock
from upshot.backend import Announcing, StoredRecord
from upshot.client import ResultClient
from upshot_backends.amqp.announcing import HOLD
from upshot_backends.amqp.mailbox import Mailbox
from upshot_backends.amqp.replies import Reply

RecordMaker = Callable[..., StoredRecord]
Eventually = Callable[[Callable[[], bool]], None]
ClientOpener = Callable[..., ResultClient]

NOWHERE = "amqp://guest:guest@127.0.0.1:9"  # where nobody listens


@pytest.fixture
def came(monkeypatch: pytest.MonkeyPatch) -> list[Reply]:
    """What comes to any mailbox."""
    heard: list[Reply] = []
    put = Mailbox.put

    def noting(mailbox: Mailbox, reply: Reply, *, expected: bool) -> bool:
        heard.append(reply)
        return put(mailbox, reply, expected=expected)

    monkeypatch.setattr(Mailbox, "put", noting)
    return heard


def announce(client: ResultClient, record: StoredRecord) -> bool:
    backend = client.backend
    assert isinstance(backend, Announcing)
    return backend.announce(record)


def expect(submitter: ResultClient, record: RecordMaker, *names: str) -> None:
    """Submit tasks, as far as their results are concerned."""
    submitter.store_encoded([record(each, b"", rank=1, state="QUEUED") for each in names])


def body(client: ResultClient, record: StoredRecord) -> bytes | None:
    (found,) = client.backend.load([record.key], 30.0)
    assert not isinstance(found, Exception)
    return found


def test_what_nothing_follows_comes(
    submitter: ResultClient, worker: ResultClient, record: RecordMaker, eventually: Eventually
) -> None:
    names = [f"task {number}" for number in range(3)]
    expect(submitter, record, *names)
    address = submitter.backend.reply_to
    for name in names:  # each by itself: the look at what is held ends between them, and begins
        announced = record(name, b"started", reply_to=address)
        assert announce(worker, announced)
        eventually(lambda announced=announced: body(submitter, announced) == b"started")  # type: ignore[misc]
        clock.sleep(5 * HOLD)


def test_what_an_end_follows_at_once_is_not_sent(
    submitter: ResultClient,
    worker: ResultClient,
    record: RecordMaker,
    came: list[Reply],
    eventually: Eventually,
) -> None:
    names = [f"task {number}" for number in range(20)]
    expect(submitter, record, *names)
    worker.store_encoded([record("opens the connection", reply_to=submitter.backend.reply_to)])
    eventually(lambda: any(each.key.endswith("connection") for each in came))
    came.clear()
    slow = 0
    for name in names:
        began = time.monotonic()
        announce(worker, record(name, b"started", reply_to=submitter.backend.reply_to))
        ended = record(name, b"ended", terminal=True, reply_to=submitter.backend.reply_to)
        worker.store_encoded([ended])
        slow += time.monotonic() - began > HOLD
    eventually(lambda: all(body(submitter, record(name)) == b"ended" for name in names))
    clock.sleep(5 * HOLD)

    assert len(names) <= len(came) <= len(names) + slow


def test_what_is_for_this_process_is_known_at_once(
    submitter: ResultClient, record: RecordMaker
) -> None:
    expect(submitter, record, "runs", "revoked")
    address = submitter.backend.reply_to
    submitter.store_encoded([record("revoked", b"revoked", terminal=True)])

    assert announce(submitter, record("runs", b"started", reply_to=address))
    assert not announce(submitter, record("revoked", b"started", reply_to=address))
    assert body(submitter, record("runs")) == b"started"
    assert body(submitter, record("revoked")) == b"revoked"


def test_what_has_no_reader_or_no_server_is_nobodys_trouble(
    open_client: ClientOpener, record: RecordMaker
) -> None:
    client = open_client(NOWHERE)
    began = time.monotonic()

    assert announce(client, record("a", reply_to="upshot.reply." + 32 * "0"))
    assert announce(client, record("b", reply_to="somebody's queue"))
    assert time.monotonic() - began < 1.0
    clock.sleep(5 * HOLD)
