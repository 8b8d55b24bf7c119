"""Looks into an SQLite file with the standard library, whatever tables the backend made."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, ClassVar, Final
from urllib.parse import unquote

from upshot import clock
from upshot.url import Url
from upshot_conformance.harness import Harness, UnavailableError
from upshot_conformance.resources import open_descriptors

__all__ = ["SqliteHarness"]

_PATIENCE: Final = 10.0  # seconds to wait for the backend's own write lock


class SqliteHarness(Harness):
    """A server object is a row, named `table/rowid`; it belongs to a namespace if any of its
    columns holds the namespace as text.
    """

    scheme: ClassVar[str] = "sqlite"
    over_network: ClassVar[bool] = False

    def __init__(self, url: Url) -> None:
        super().__init__(url)
        path = unquote(url.driver_url().partition("://")[2].partition("?")[0])
        self._path = Path(path.removeprefix("/"))

    @classmethod
    @contextlib.contextmanager
    def start(cls) -> Generator[str]:
        """Make a folder for a file that is not there yet."""
        with tempfile.TemporaryDirectory(prefix="upshot-sqlite-") as folder:
            yield f"sqlite:///{folder}/results.db"

    def raw_objects(self, namespace: str) -> set[str]:
        with self._open() as connection:
            return {
                f"{table}/{row[0]}"
                for table, row in self._rows(connection)
                if any(isinstance(cell, str) and namespace in cell for cell in row[1:])
            }

    def purge(self, namespace: str) -> None:
        with self._open() as connection, connection:
            for name in self.raw_objects(namespace):
                table, _, rowid = name.rpartition("/")
                connection.execute(f"DELETE FROM {_quoted(table)} WHERE rowid = ?", (rowid,))

    def server_version(self) -> str:
        return f"SQLite {sqlite3.sqlite_version}"

    def read_raw(self, name: str) -> bytes:
        return repr(sorted(self._row(name).items())).encode()

    def ttl(self, name: str) -> float | None:
        row = self._row(name)
        columns = [column for column in row if column.startswith("expires")]
        if len(columns) != 1:
            raise UnavailableError(f"no column of {name!r} says when it expires")
        moment = row[columns[0]]
        return None if moment is None else float(moment) - clock.now()

    @contextlib.contextmanager
    def writes_blocked(self) -> Generator[None]:
        with self._open() as connection:
            connection.execute("BEGIN EXCLUSIVE")
            try:
                yield
            finally:
                connection.rollback()

    def subscriptions(self, namespace: str) -> set[str]:
        return set()  # SQLite has none

    def connections(self) -> int:
        """Count this process's descriptors of the file: there is no server to ask."""
        return sum(each.endswith(f" → {self._path}") for each in open_descriptors())

    def _row(self, name: str) -> dict[str, Any]:
        table, _, rowid = name.rpartition("/")
        with self._open() as connection:
            connection.row_factory = sqlite3.Row
            found = connection.execute(
                f"SELECT * FROM {_quoted(table)} WHERE rowid = ?", (rowid,)
            ).fetchone()
        return dict(found) if found else {}

    def _rows(self, connection: sqlite3.Connection) -> Iterator[tuple[str, tuple[Any, ...]]]:
        tables = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        for (table,) in tables.fetchall():
            for row in connection.execute(f"SELECT rowid, * FROM {_quoted(table)}"):
                yield str(table), row

    @contextlib.contextmanager
    def _open(self) -> Generator[sqlite3.Connection]:
        """Open the file for one look: a connection that stayed open would count as a leak."""
        connection = sqlite3.connect(self._path, timeout=_PATIENCE)
        try:
            yield connection
        finally:
            connection.close()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
