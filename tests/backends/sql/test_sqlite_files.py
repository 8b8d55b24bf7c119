"""Which file a URL means, who may read it, and what it must hold."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from upshot.backend import StoredRecord
from upshot.errors import ServiceRejectedError, UrlError
from upshot.url import Url
from upshot_backends.sql.sqlite.broker import SqliteBroker
from upshot_backends.sql.sqlite.results import SqliteBackend

BackendOpener = Callable[..., SqliteBackend]
RecordMaker = Callable[..., StoredRecord]


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("sqlite:///:memory:", "memory://"),
        ("sqlite:///", "memory://"),
        ("sqlite:///file:x?mode=memory", "parameters"),
        ("sqlite:///file:x", "memory://"),
        ("sqlite://somebody:secret@/tasks.db", "a file is written"),
        ("sqlite://relative.db", "sqlite:///relative.db"),
        ("sqlite://", "sqlite:///relative.db"),
        ("sqlite:///x.db?timeout=3", "timeout"),
        ("sqlite:///x.db?upshot_prefix=a", "upshot_table_prefix"),
        ("sqlite:///x.db?upshot_table_prefix=a;b", "letters"),
        ("sqlite:///x.db?upshot_table_prefix=", "letters"),
        ("sqlite+aiosqlite:///x.db", "sqlite://"),
        ("oracle:///x.db", "sqlite://"),
    ],
)
def test_a_url_that_cannot_work_is_refused_at_once(url: str, hint: str) -> None:
    with pytest.raises(UrlError, match=hint):
        SqliteBackend(Url.parse(url))
    with pytest.raises(UrlError, match=hint):
        SqliteBroker(Url.parse(url), "ns")


@pytest.mark.parametrize("scheme", ["sqlite", "db+sqlite", "sqla+sqlite", "sqlite+pysqlite"])
def test_all_ways_to_write_the_scheme_mean_the_same_file(
    open_backend: BackendOpener, record: RecordMaker, path: Path, scheme: str
) -> None:
    open_backend().store([record("k")], 5.0)

    assert open_backend(f"{scheme}:///{path}").load(["k"], 5.0) == [b"body"]


def test_a_relative_path_stays_where_it_was_when_the_url_was_read(
    open_backend: BackendOpener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    backend = open_backend("sqlite:///.upshot/upshot.db")
    monkeypatch.chdir("/")
    backend.load(["k"], 5.0)

    assert (tmp_path / ".upshot" / "upshot.db").is_file()


@pytest.mark.parametrize("name", ["a b", "100%", "ä", "what?", "x#y"])
def test_a_path_may_hold_any_character(
    open_backend: BackendOpener, tmp_path: Path, record: RecordMaker, name: str
) -> None:
    encoded = name.replace("%", "%25").replace(" ", "%20").replace("?", "%3F").replace("#", "%23")
    open_backend(f"sqlite:///{tmp_path}/{encoded}.db").store([record("k")], 5.0)

    assert (tmp_path / f"{name}.db").is_file()


def test_files_and_a_missing_folder_are_the_owners_alone(
    open_backend: BackendOpener, tmp_path: Path, record: RecordMaker
) -> None:
    open_backend(f"sqlite:///{tmp_path}/.upshot/upshot.db").store([record("k")], 5.0)

    folder = tmp_path / ".upshot"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}
    assert modes == dict.fromkeys(
        ["upshot.db", "upshot.db-wal", "upshot.db-shm", "upshot.db.lock"], 0o600
    )


def test_a_lock_may_be_used_by_whoever_may_write_the_database(
    open_backend: BackendOpener, path: Path, record: RecordMaker
) -> None:
    path.touch()
    path.chmod(0o660)
    open_backend().store([record("k")], 5.0)

    assert stat.S_IMODE(Path(f"{path}.lock").stat().st_mode) == 0o660


def test_no_more_than_one_folder_is_made(open_backend: BackendOpener, tmp_path: Path) -> None:
    backend = open_backend(f"sqlite:///{tmp_path}/a/b/upshot.db")

    with pytest.raises(UrlError, match="folder"):
        backend.load(["k"], 5.0)
    assert not (tmp_path / "a").exists()


def test_a_file_that_is_no_database_is_refused(backend: SqliteBackend, path: Path) -> None:
    path.write_bytes(b"no database" * 1000)

    with pytest.raises(ServiceRejectedError, match="not a database"):
        backend.load(["k"], 5.0)
    assert path.read_bytes() == b"no database" * 1000


def test_tables_of_a_newer_version_are_refused_and_left_alone(
    open_backend: BackendOpener, raw: sqlite3.Connection, record: RecordMaker
) -> None:
    open_backend().store([record("k")], 5.0)
    raw.execute("UPDATE upshot_schema SET version = 2")

    with pytest.raises(ServiceRejectedError, match="version 2"):
        open_backend().store([record("l")], 5.0)
    assert raw.execute("SELECT key FROM upshot_results").fetchall() == [("k",)]


def test_another_prefix_means_other_tables(
    open_backend: BackendOpener, path: Path, record: RecordMaker
) -> None:
    other = open_backend(f"sqlite:///{path}?upshot_table_prefix=other_")
    open_backend().store([record("k")], 5.0)

    assert other.load(["k"], 5.0) == [None]


def test_a_database_is_in_wal_mode_and_leaves_no_log_when_closed(
    open_backend: BackendOpener, path: Path, record: RecordMaker
) -> None:
    backend = open_backend()
    backend.store([record("k")], 5.0)
    was_there = Path(f"{path}-wal").exists()
    backend.close()

    assert was_there
    assert not Path(f"{path}-wal").exists()


def test_a_broker_joins_a_backend_on_the_same_tables_only(
    broker: SqliteBroker, open_backend: BackendOpener, path: Path, tmp_path: Path
) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(path)

    assert broker.joins(open_backend())
    assert broker.joins(open_backend(f"sqlite:///{link}"))
    assert not broker.joins(open_backend(f"sqlite:///{tmp_path}/other.db"))
    assert not broker.joins(open_backend(f"sqlite:///{path}?upshot_table_prefix=other_"))
