"""The rows of `results` in SQLite's words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import final

from upshot.backend import StoredRecord
from upshot_backends.sql.connection import Cursor, Database
from upshot_backends.sql.records import Records, readable
from upshot_backends.sql.scripts import scripts

__all__ = ["SqliteRecords"]


@final
class SqliteRecords(Records):
    """One statement per record: there is no round trip to save."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        read = scripts(__package__ or "", database.schema, database.dialect)
        self._store, self._load_many = read("store"), read("load")
        self._delete, self._sweep = read("delete"), read("sweep")

    def is_one_statement(self, records: Sequence[StoredRecord]) -> bool:
        return False

    def store(
        self, cursor: Cursor, records: Sequence[StoredRecord], now: float, *, tell: bool = True
    ) -> list[bool]:
        answers: list[bool] = []
        for record in records:
            cursor.execute(
                self._store,
                {
                    "key": record.key,
                    "task_id": record.task_id,
                    "name": readable(record.name),
                    "state": readable(record.state),
                    "barrier": record.barrier,
                    "rank": record.rank,
                    "expires_at": None if record.expires is None else now + record.expires,
                    "body": record.body,
                    "now": now,
                },
            )
            answers.append(cursor.rowcount == 1)
        return answers

    def delete(self, cursor: Cursor, keys: Sequence[str]) -> None:
        cursor.execute(self._delete, {"keys": json.dumps(keys)})

    def sweep(self, cursor: Cursor, now: float, limit: int) -> int:
        cursor.execute(self._sweep, {"now": now, "limit": limit})
        return cursor.rowcount

    def _load(self, cursor: Cursor, keys: Sequence[str], now: float) -> dict[str, bytes]:
        cursor.execute(self._load_many, {"keys": json.dumps(keys), "now": now})
        return dict(cursor.fetchall())
