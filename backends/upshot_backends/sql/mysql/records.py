"""The rows of `results` in the words of MySQL and MariaDB.

A body travels in Base64: in a statement, PyMySQL would write each byte as two digits.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from typing import Final, final

from upshot.backend import StoredRecord
from upshot_backends.sql.connection import Cursor, Database
from upshot_backends.sql.records import Records, batches, readable, text
from upshot_backends.sql.scripts import scripts

__all__ = ["MysqlRecords", "base64_of"]

_PART: Final = 256 * 2**10  # bytes of bodies in one statement, a quarter of the smallest packet
_STAMP: Final = 8  # bytes, see `schema`
_ROW: Final = (
    "(%(key{n})s, %(task_id{n})s, %(name{n})s, %(state{n})s, %(barrier{n})s, %(now)s, "
    "%(expires_at{n})s, FROM_BASE64(%(body{n})s), %(stamp)s)"
)


@final
class MysqlRecords(Records):
    """One record is one statement; more are a transaction that asks which ones applied.

    For the one, the server counts the rows: 1 for a new one, 2 for a changed one, 0 for one that
    was found and not changed. A stamp that is new each time makes each change count.
    """

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        read = scripts(__package__ or "", database.schema, database.dialect)
        self._store, self._applied, self._load_many = read("store"), read("applied"), read("load")
        self._delete, self._sweep = read("delete"), read("sweep")

    def is_one_statement(self, records: Sequence[StoredRecord]) -> bool:
        return len(records) == 1

    def store(
        self, cursor: Cursor, records: Sequence[StoredRecord], now: float, *, tell: bool = True
    ) -> list[bool]:
        answers = [False] * len(records)
        for places in batches(records, _PART):
            batch = [records[place] for place in places]
            stamp = os.urandom(_STAMP)
            rows = ", ".join(_ROW.replace("{n}", str(number)) for number in range(len(batch)))
            values: dict[str, object] = {"rank": batch[0].rank, "now": now, "stamp": stamp}
            for number, record in enumerate(batch):
                values |= _values(record, number, now)
            cursor.execute(self._store.replace("{rows}", rows), values)
            if not tell:
                continue
            if len(records) == 1:
                return [cursor.rowcount > 0]
            keys = _exact([record.key for record in batch])
            cursor.execute(self._applied, {"keys": keys, "stamp": stamp})
            applied = {text(key) for (key,) in cursor.fetchall()}
            for place in places:
                answers[place] = records[place].key in applied
        return answers

    def delete(self, cursor: Cursor, keys: Sequence[str]) -> None:
        cursor.execute(self._delete, {"keys": _exact(sorted(set(keys)))})

    def sweep(self, cursor: Cursor, now: float, limit: int) -> int:
        cursor.execute(self._statements.expired, {"now": now, "limit": limit})
        keys = sorted(bytes(key) for (key,) in cursor.fetchall())
        if not keys:
            return 0
        cursor.execute(self._sweep, {"keys": keys, "now": now})
        return cursor.rowcount

    def _load(self, cursor: Cursor, keys: Sequence[str], now: float) -> dict[str, bytes]:
        cursor.execute(self._load_many, {"keys": _exact(keys), "now": now})
        return {text(key): body for key, body in cursor.fetchall()}


def base64_of(body: bytes) -> str:
    """Return bytes as `FROM_BASE64` takes them."""
    return base64.b64encode(body).decode()


def _exact(keys: Sequence[str]) -> list[bytes]:
    """Return keys as the bytes that they are in their column."""
    return [key.encode() for key in keys]


def _values(record: StoredRecord, number: int, now: float) -> dict[str, object]:
    return {
        f"key{number}": record.key.encode(),
        f"task_id{number}": record.task_id,
        f"name{number}": readable(record.name),
        f"state{number}": readable(record.state),
        f"barrier{number}": record.barrier,
        f"expires_at{number}": None if record.expires is None else now + record.expires,
        f"body{number}": base64_of(record.body),
    }
