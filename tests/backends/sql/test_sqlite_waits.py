"""Noticing what other connections commit."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from upshot import clock
from upshot.backend import StoredRecord
from upshot.errors import ServiceClosedError
from upshot.listening import Hint, Listener
from upshot_backends.sql.sqlite.broker import SqliteBroker
from upshot_backends.sql.sqlite.results import SqliteBackend

BackendOpener = Callable[..., SqliteBackend]
RecordMaker = Callable[..., StoredRecord]


@pytest.fixture
def listener(backend: SqliteBackend) -> Iterator[Listener]:
    """A listener that has heard of everything so far."""
    opened = backend.listen(5.0)
    assert opened is not None
    opened.subscribe(["k"])
    opened.wait(0.0)
    yield opened
    opened.close()


@pytest.mark.parametrize("own", [True, False], ids=["the same backend", "another backend"])
def test_a_commit_that_came_before_the_wait_is_heard_at_once(
    listener: Listener,
    backend: SqliteBackend,
    open_backend: BackendOpener,
    record: RecordMaker,
    own: bool,
) -> None:
    (backend if own else open_backend()).store([record("k")], 5.0)
    began = clock.monotonic()

    assert list(listener.wait(5.0)) == [Hint(None)]
    assert clock.monotonic() - began < 0.5
    assert list(listener.wait(0.0)) == []


def test_a_commit_during_the_wait_is_heard_soon(
    listener: Listener, open_backend: BackendOpener, record: RecordMaker
) -> None:
    other, heard = open_backend(), list[float]()
    other.load(["k"], 5.0)
    listener.wait(0.0)
    thread = threading.Thread(
        target=lambda: heard.extend(clock.monotonic() for _ in listener.wait(10.0))
    )
    thread.start()
    stored = clock.monotonic()
    other.store([record("k")], 5.0)
    thread.join(timeout=10.0)

    assert len(heard) == 1
    assert heard[0] - stored < 0.5


def test_reading_is_not_heard(listener: Listener, open_backend: BackendOpener) -> None:
    open_backend().load(["k"], 5.0)
    listener.wait(0.0)  # opening a database is a commit
    open_backend().load(["k"], 5.0)
    began = clock.monotonic()

    assert list(listener.wait(0.2)) == []
    assert 0.19 <= clock.monotonic() - began < 1.0


def test_an_interrupt_ends_the_running_or_the_next_wait(listener: Listener) -> None:
    listener.interrupt()
    began = clock.monotonic()

    assert list(listener.wait(10.0)) == []
    assert clock.monotonic() - began < 1.0
    assert list(listener.wait(0.0)) == []


def test_close_ends_a_waiting_fetch(broker: SqliteBroker) -> None:
    ended: list[BaseException] = []

    def wait() -> None:
        try:
            broker.fetch(["q"], limit=1, wait=60.0, lease=60.0, worker="w")
        except ServiceClosedError as exc:
            ended.append(exc)

    thread = threading.Thread(target=wait)
    thread.start()
    deadline = clock.Deadline(10.0)
    while not broker.survey(["q"], 5.0)["q"].workers and not deadline.expired:
        clock.sleep(0.005)
    broker.close()
    thread.join(timeout=5.0)

    assert not thread.is_alive()
    assert len(ended) == 1
