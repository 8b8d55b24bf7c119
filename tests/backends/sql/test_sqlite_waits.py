"""Noticing what other connections commit."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from upshot import clock
from upshot.backend import StoredRecord
from upshot.errors import ServiceClosedError
from upshot.listening import Hint, Listener
from upshot.url import Url
from upshot_backends.sql.sqlite import watch
from upshot_backends.sql.sqlite.broker import SqliteBroker
from upshot_backends.sql.sqlite.connection import SqliteDatabase
from upshot_backends.sql.sqlite.notices import WriteNotices
from upshot_backends.sql.sqlite.results import SqliteBackend
from upshot_backends.sql.sqlite.watch import SqliteWatch

BackendOpener = Callable[..., SqliteBackend]
RecordMaker = Callable[..., StoredRecord]


def notices(database: SqliteDatabase) -> WriteNotices:
    """Return what hears of writes to a log that is there; skips where the kernel does not tell."""
    found = database.notices()
    if found is None:
        pytest.skip("this system has no inotify, or no more of it")
    return found


@pytest.fixture
def is_told(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the kernel tells of writes."""
    told = bool(request.param)

    def nothing(_: SqliteDatabase) -> None:
        """Stand for `notices` on another system."""

    if not told:
        monkeypatch.setattr(SqliteDatabase, "notices", nothing)
    return told


@pytest.fixture
def listener(backend: SqliteBackend) -> Iterator[Listener]:
    """A listener that has heard of everything so far."""
    opened = backend.listen(5.0)
    assert opened is not None
    opened.subscribe(["k"])
    opened.wait(0.0)
    yield opened
    opened.close()


@pytest.mark.alone
@pytest.mark.parametrize("is_told", [True, False], ids=["told", "not told"], indirect=True)
@pytest.mark.usefixtures("is_told")
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


@pytest.mark.alone
@pytest.mark.parametrize("is_told", [True, False], ids=["told", "not told"], indirect=True)
@pytest.mark.usefixtures("is_told")
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


@pytest.mark.parametrize("is_told", [True, False], ids=["told", "not told"], indirect=True)
@pytest.mark.usefixtures("is_told")
def test_reading_is_not_heard(listener: Listener, open_backend: BackendOpener) -> None:
    open_backend().load(["k"], 5.0)
    listener.wait(0.0)  # opening a database is a commit
    open_backend().load(["k"], 5.0)
    began = clock.monotonic()

    assert list(listener.wait(0.2)) == []
    assert 0.19 <= clock.monotonic() - began < 1.0


@pytest.mark.parametrize("is_told", [True, False], ids=["told", "not told"], indirect=True)
@pytest.mark.usefixtures("is_told")
def test_an_interrupt_ends_the_running_or_the_next_wait(listener: Listener) -> None:
    listener.interrupt()
    began = clock.monotonic()

    assert list(listener.wait(10.0)) == []
    assert clock.monotonic() - began < 1.0
    assert list(listener.wait(0.0)) == []

    threading.Timer(0.2, listener.interrupt).start()
    began = clock.monotonic()
    assert list(listener.wait(10.0)) == []
    assert clock.monotonic() - began < 2.0


@pytest.mark.parametrize("is_told", [True, False], ids=["told", "not told"], indirect=True)
@pytest.mark.usefixtures("is_told")
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


@pytest.fixture
def rare_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks for commits but when the kernel tells of one."""
    monkeypatch.setattr(watch, "_NOTICED", 30.0)
    monkeypatch.setattr(watch, "_COMMIT", 30.0)


@pytest.mark.usefixtures("rare_looks")
def test_the_kernel_tells_of_a_commit_that_nobody_looks_for(
    path: Path, open_backend: BackendOpener, record: RecordMaker
) -> None:
    database = SqliteDatabase(Url.parse(f"sqlite:///{path}"))
    watching, other = SqliteWatch(database, 30.0), open_backend()
    assert watching.wait(0.0)
    notices(database)
    other.store([record("k")], 5.0)
    assert watching.wait(30.0)
    threading.Timer(0.3, other.store, [[record("l")], 5.0]).start()
    began = clock.monotonic()

    assert watching.wait(30.0)
    assert clock.monotonic() - began < 10.0
    watching.close()
    database.close()


@pytest.mark.usefixtures("rare_looks")
def test_an_interrupt_that_came_with_a_commit_ends_the_wait_after_it(
    path: Path, open_backend: BackendOpener, record: RecordMaker
) -> None:
    database = SqliteDatabase(Url.parse(f"sqlite:///{path}"))
    watching, other = SqliteWatch(database, 30.0), open_backend()
    assert watching.wait(0.0)
    notices(database)
    other.store([record("k")], 5.0)
    watching.interrupt()
    assert watching.wait(30.0)
    began = clock.monotonic()

    assert not watching.wait(30.0)
    assert clock.monotonic() - began < 10.0
    watching.close()
    database.close()


def test_the_kernel_tells_of_commits_to_a_file_behind_a_link(
    path: Path, open_backend: BackendOpener
) -> None:
    backend = open_backend()
    backend.load(["k"], 5.0)
    notices(SqliteDatabase(Url.parse(f"sqlite:///{path}")))
    link = path.with_name("link.db")
    link.symlink_to(path)

    assert SqliteDatabase(Url.parse(f"sqlite:///{link}")).notices() is not None


def test_commits_are_heard_of_though_the_kernel_does_not_tell(
    path: Path, open_backend: BackendOpener, record: RecordMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = SqliteDatabase(Url.parse(f"sqlite:///{path}"))
    watching, other = SqliteWatch(database, 0.02), open_backend()
    other.load(["k"], 5.0)
    assert watching.wait(0.0)
    notices(database)
    asked: list[float] = []

    def deaf(_: WriteNotices, seconds: float) -> bool:
        asked.append(seconds)
        clock.sleep(seconds)
        return False

    monkeypatch.setattr(WriteNotices, "wait", deaf)
    monkeypatch.setattr(watch, "_DEAF", 0.1)
    clock.sleep(0.2)
    other.store([record("k")], 5.0)
    assert watching.wait(10.0)
    assert asked == [0.0]  # it was not told of that, and listens no longer
    threading.Timer(0.1, other.store, [[record("l")], 5.0]).start()
    assert watching.wait(10.0)
    assert asked == [0.0]
    watching.close()
    database.close()


def test_a_closed_watch_leaves_no_descriptor(path: Path) -> None:
    database = SqliteDatabase(Url.parse(f"sqlite:///{path}"))
    before = _inotify_descriptors()
    watching = SqliteWatch(database, 0.02)
    assert watching.wait(0.0)
    notices(database)
    assert _inotify_descriptors() == before + 1
    watching.close()
    database.close()
    assert _inotify_descriptors() == before


def _inotify_descriptors() -> int:
    links: list[str] = []
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the folder's own, closed by now
            links.append(os.readlink(each))
    return links.count("anon_inode:inotify")
