"""The rows of `results` in SQLite's words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import final

from upshot.backend import StoredRecord
from upshot_backends.sql.connection import Cursor, Database
from upshot_backends.sql.records import Records, readable
from upshot_backends.sql.scripts import scripts
from upshot_backends.sql.sqlite.cursor import BEGIN, Row, SqliteCursor

__all__ = ["SqliteRecords"]


@final
class SqliteRecords(Records):
    """One statement per record: there is no round trip to save.

    Whoever asks which of several applied has nothing else in the transaction.
    """

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        read = scripts(__package__ or "", database.schema, database.dialect)
        self._store, self._load_many = read("store"), read("load")
        self._delete, self._delete_one = read("delete"), read("delete_one")
        self._sweep = read("sweep")

    def is_one_statement(self, records: Sequence[StoredRecord]) -> bool:
        return len(records) == 1

    def store(
        self, cursor: Cursor, records: Sequence[StoredRecord], now: float, *, tell: bool = True
    ) -> list[bool]:
        assert isinstance(cursor, SqliteCursor)
        rows = [_row(record, now) for record in records]
        if len(rows) == 1:
            return [cursor.execute_one(self._store, rows[0]) == 1]
        if cursor.execute_each(self._store, rows) == len(rows) or not tell:
            return [True] * len(rows)
        # Some did not apply. Which ones, only one after the other tell: so all are stored again.
        cursor.execute("ROLLBACK")
        cursor.execute(BEGIN)
        return [cursor.execute_one(self._store, row) == 1 for row in rows]

    def delete(self, cursor: Cursor, keys: Sequence[str]) -> None:
        if len(keys) == 1:
            cursor.execute(self._delete_one, {"key": keys[0]})
        else:
            cursor.execute(self._delete, {"keys": json.dumps(keys)})

    def sweep(self, cursor: Cursor, now: float, limit: int) -> int:
        cursor.execute(self._sweep, {"now": now, "limit": limit})
        return cursor.rowcount

    def _load(self, cursor: Cursor, keys: Sequence[str], now: float) -> dict[str, bytes]:
        cursor.execute(self._load_many, {"keys": json.dumps(keys), "now": now})
        return dict(cursor.fetchall())


def _row(record: StoredRecord, now: float) -> Row:
    """Return what `store.sql` takes."""
    return (
        record.key,
        record.task_id,
        readable(record.name),
        readable(record.state),
        record.barrier,
        now,
        None if record.expires is None else now + record.expires,
        record.body,
        record.rank,
    )
