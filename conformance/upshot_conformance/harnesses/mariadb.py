"""Looks into a MariaDB or MySQL database with PyMySQL, whatever tables the backend made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Final, cast
from urllib.parse import unquote

from upshot_conformance.harnesses.private import PrivateHarness, PrivateService
from upshot_conformance.harnesses.rows import RowsHarness

__all__ = ["MariadbHarness"]

_TABLES: Final = "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()"
_KEY: Final = """
    SELECT column_name FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = %s AND column_key = 'PRI'
    ORDER BY ordinal_position
"""
_MICROSECONDS: Final = "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))"
_OTHERS: Final = """
    SELECT COUNT(*) FROM information_schema.processlist
    WHERE db = DATABASE() AND id <> CONNECTION_ID()
"""


class MariadbHarness(PrivateHarness, RowsHarness):
    """A server object is a row, named `table/its primary key`; it belongs to a namespace if any of
    its columns but the record's body holds the namespace.
    """

    scheme: ClassVar[str] = "mariadb"
    default_port: ClassVar[int] = 3306

    @classmethod
    def make_service(cls) -> PrivateService:
        """Return a private MariaDB with an empty database."""
        from upshot_conformance.servers import MariaDBServer  # only who starts one

        return MariaDBServer()

    def connect(self) -> None:
        import pymysql  # here, so that a missing driver is reported by the backend, once

        url = self.url
        host, port = url.hosts[0]
        self._connection: Any = pymysql.connect(
            host=host,
            port=port or self.default_port,
            user=url.username,
            password=url.password or "",
            database=unquote(url.path[1:]),
            charset="utf8mb4",
            autocommit=True,
            connect_timeout=10,
            read_timeout=10,
        )

    def server_version(self) -> str:
        version = str(self._run("SELECT VERSION()")[0][0])
        return version if "MariaDB" in version else f"MySQL {version}"

    def subscriptions(self, namespace: str) -> set[str]:
        return set()  # these services have none

    def connections(self) -> int:
        return int(self._run(_OTHERS)[0][0])

    def close(self) -> None:
        if self._connection.open:
            self._connection.close()

    def _run(self, statement: str, values: list[Any] | None = None) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(statement, values)
            return cast("list[tuple[Any, ...]]", list(cursor.fetchall()))

    def _now(self) -> float:
        return int(self._run(_MICROSECONDS)[0][0]) / 1e6

    def _tables(self) -> list[str]:
        return [table for (table,) in self._run(_TABLES)]

    def _rows(self, table: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Yield of each row its primary key and all that is in it, exact text as text."""
        names = [name for (name,) in self._run(_KEY, [table])]
        with self._connection.cursor() as cursor:
            cursor.execute(f"SELECT * FROM `{table}`")
            columns = [column[0] for column in cursor.description]
            found = list(cursor.fetchall())
        for cells in found:
            row = dict(zip(columns, map(_readable, cells), strict=True))
            yield {name: row[name] for name in names}, row

    def _mentions(self, row: dict[str, Any], namespace: str) -> bool:
        return any(namespace in str(cell) for column, cell in row.items() if column != "body")

    def _remove(self, table: str, key: dict[str, Any]) -> None:
        self._run(f"DELETE FROM `{table}` WHERE {_condition(key)}", list(key.values()))


def _condition(key: dict[str, Any]) -> str:
    return " AND ".join(f"`{column}` = %s" for column in key)


def _readable(cell: Any) -> Any:
    """Return the text in a binary column that compares it byte by byte."""
    return cell.decode(errors="surrogateescape") if isinstance(cell, bytes) else cell
