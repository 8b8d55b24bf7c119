"""A file of the test's own, and what is opened on it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from upshot.backend import StoredRecord
from upshot.states import NEVER
from upshot.url import Url
from upshot_backends.sql.sqlite.broker import SqliteBroker
from upshot_backends.sql.sqlite.results import SqliteBackend

BackendOpener = Callable[..., SqliteBackend]
BrokerOpener = Callable[..., SqliteBroker]
RecordMaker = Callable[..., StoredRecord]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "upshot.db"


@pytest.fixture
def open_backend(path: Path) -> Iterator[BackendOpener]:
    """Opens backends at a URL, by default on the test's file."""
    opened: list[SqliteBackend] = []

    def open_one(url: str = f"sqlite:///{path}") -> SqliteBackend:
        opened.append(SqliteBackend(Url.parse(url)))
        return opened[-1]

    yield open_one
    for backend in opened:
        backend.close()


@pytest.fixture
def backend(open_backend: BackendOpener) -> SqliteBackend:
    return open_backend()


@pytest.fixture
def open_broker(path: Path) -> Iterator[BrokerOpener]:
    """Opens brokers at a URL, by default on the test's file."""
    opened: list[SqliteBroker] = []

    def open_one(url: str = f"sqlite:///{path}", namespace: str = "ns") -> SqliteBroker:
        opened.append(SqliteBroker(Url.parse(url), namespace))
        return opened[-1]

    yield open_one
    for broker in opened:
        broker.close()


@pytest.fixture
def broker(open_broker: BrokerOpener) -> SqliteBroker:
    return open_broker()


@pytest.fixture
def raw(path: Path) -> Iterator[sqlite3.Connection]:
    """The driver itself, in autocommit mode, to look behind the backend and to get in its way."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=5.0)
    yield connection
    connection.close()


@pytest.fixture
def open_files(path: Path) -> Callable[[], list[str]]:
    """Tells which of the database's files this process has open."""
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        pytest.skip("this system does not tell which files are open")

    def look() -> list[str]:
        links = (folder / str(number) for number in range(1024))
        targets = (str(link.readlink()) for link in links if link.is_symlink())
        return [target for target in targets if target.startswith(str(path))]

    return look


@pytest.fixture
def record() -> RecordMaker:
    """Makes records that are ready to store: terminal ones, if not told otherwise."""

    def make(
        key: str,
        body: bytes = b"body",
        *,
        rank: int = 31,
        barrier: int = NEVER,
        expires: float | None = 3600.0,
    ) -> StoredRecord:
        return StoredRecord(
            key=key,
            body=body,
            rank=rank,
            barrier=barrier,
            expires=expires,
            task_id=key,
            state="SUCCESS",
            name="tests.add",
            reply_to="",
        )

    return make
