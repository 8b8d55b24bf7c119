"""Looks into a PostgreSQL database with psycopg, whatever tables the backend made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Final, cast

from upshot_conformance.harnesses.private import PrivateHarness, PrivateService
from upshot_conformance.harnesses.rows import RowsHarness

__all__ = ["PostgresqlHarness"]

_TABLES: Final = """
    SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) FROM pg_tables
    WHERE schemaname NOT IN ('pg_catalog', 'information_schema')
"""
_KEY: Final = """
    SELECT attname FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey)
    WHERE indisprimary AND indrelid = %s::regclass
    ORDER BY attnum
"""
_OTHERS: Final = """
    SELECT count(*) FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND datname = current_database()
        AND pid <> pg_backend_pid()
"""


class PostgresqlHarness(PrivateHarness, RowsHarness):
    """A server object is a row, named `schema.table/its primary key`; it belongs to a namespace if
    any of its columns holds the namespace as text.
    """

    scheme: ClassVar[str] = "postgresql"
    default_port: ClassVar[int] = 5432

    @classmethod
    def make_service(cls) -> PrivateService:
        """Return a private PostgreSQL with an empty database."""
        from upshot_conformance.servers import PostgreSQLServer  # only who starts one

        return PostgreSQLServer()

    def connect(self) -> None:
        import psycopg  # here, so that a missing driver is reported by the backend, once

        # Nothing is prepared, so that a proxy may stand between.
        self._connection: Any = psycopg.connect(
            self.url.driver_url("postgresql"),
            autocommit=True,
            prepare_threshold=None,
            connect_timeout=10,
        )

    def server_version(self) -> str:
        return f"PostgreSQL {self._run('SHOW server_version')[0][0]}"

    def subscriptions(self, namespace: str) -> set[str]:
        return set()  # a channel is for the whole database: the server knows of no keys

    def connections(self) -> int:
        return int(self._run(_OTHERS)[0][0])

    def close(self) -> None:
        self._connection.close()

    def _run(self, statement: str, values: list[Any] | None = None) -> list[tuple[Any, ...]]:
        cursor = self._connection.execute(statement, values)
        return cast("list[tuple[Any, ...]]", cursor.fetchall()) if cursor.description else []

    def _now(self) -> float:
        return float(self._run("SELECT extract(epoch FROM clock_timestamp())::float8")[0][0])

    def _tables(self) -> list[str]:
        return [table for (table,) in self._run(_TABLES)]

    def _rows(self, table: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Yield of each row its primary key and all that is in it."""
        names = [name for (name,) in self._run(_KEY, [table])]
        cursor = self._connection.execute(f"SELECT * FROM {table}")
        columns = [column.name for column in cursor.description]
        for cells in cursor.fetchall():
            row = dict(zip(columns, cells, strict=True))
            yield {name: row[name] for name in names}, row

    def _mentions(self, row: dict[str, Any], namespace: str) -> bool:
        return not namespace or any(
            isinstance(cell, str) and namespace in cell for cell in row.values()
        )

    def _remove(self, table: str, key: dict[str, Any]) -> None:
        self._run(f"DELETE FROM {table} WHERE {_condition(key)}", list(key.values()))


def _condition(key: dict[str, Any]) -> str:
    return " AND ".join(f'"{column}" = %s' for column in key)
