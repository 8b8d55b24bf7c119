"""The rows of `results` in PostgreSQL's words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, final

from upshot.backend import StoredRecord
from upshot.states import NEVER
from upshot_backends.sql.connection import Cursor
from upshot_backends.sql.postgresql.connection import PostgresqlDatabase
from upshot_backends.sql.records import Records, batches, readable
from upshot_backends.sql.scripts import scripts

__all__ = ["APPLIED", "PostgresqlRecords", "batch_values", "record_values"]

_PART: Final = 16 * 2**20  # bytes of bodies in one statement; the server takes up to 1 GB

APPLIED: Final = """
    SELECT key, CASE WHEN barrier = %(never)s THEN pg_notify(%(channel)s, '=' || key)::text END
    FROM applied
"""
"""What follows `apply.sql`: the keys that applied; of terminal records, the waiters are told."""


@final
class PostgresqlRecords(Records):
    """Every step is one statement, whose parameters are arrays.

    A terminal record that applied is notified as "=" and its key on the channel for results, a
    deleted one as "-" and its key, whether it was there or not: somebody may wait for it.
    """

    def __init__(self, database: PostgresqlDatabase) -> None:
        super().__init__(database)
        self._database = database
        read = scripts(__package__ or "", database.schema, database.dialect)
        patience, apply = read("patience"), read("apply")
        self._store = f"WITH {patience}, {read('records')}, {apply} {APPLIED}"
        self._store_one = f"WITH {patience}, {read('record')}, {apply} {APPLIED}"
        self._load_many = read("load")
        self._delete, self._delete_one = read("delete"), read("delete_one")
        self._sweep = read("sweep")

    def is_one_statement(self, records: Sequence[StoredRecord]) -> bool:
        return len(records) == 1 or len(batches(records, _PART)) == 1

    def store(
        self, cursor: Cursor, records: Sequence[StoredRecord], now: float, *, tell: bool = True
    ) -> list[bool]:
        if len(records) == 1:
            values = record_values(records[0], now, self._database.channel("results"))
            cursor.execute(self._store_one, values)
            return [cursor.rowcount == 1]
        answers = [False] * len(records)
        channel = self._database.channel("results")
        for places in batches(records, _PART):
            batch = [records[place] for place in places]
            values = batch_values(batch, now) | {"never": NEVER, "channel": channel}
            cursor.execute(self._store, values)
            applied = {key for key, _ in cursor.fetchall()}
            for place, record in zip(places, batch, strict=True):
                answers[place] = record.key in applied
        return answers

    def delete(self, cursor: Cursor, keys: Sequence[str]) -> None:
        channel = self._database.channel("results")
        if len(keys) == 1:
            cursor.execute(self._delete_one, {"key": keys[0], "channel": channel})
        else:
            cursor.execute(self._delete, {"keys": sorted(set(keys)), "channel": channel})

    def sweep(self, cursor: Cursor, now: float, limit: int) -> int:
        cursor.execute(self._sweep, {"now": now, "limit": limit})
        return cursor.rowcount

    def _load(self, cursor: Cursor, keys: Sequence[str], now: float) -> dict[str, bytes]:
        cursor.execute(self._load_many, {"keys": list(keys), "now": now})
        return dict(cursor.fetchall())


def record_values(record: StoredRecord, now: float, channel: str) -> dict[str, object]:
    """Return what `record.sql`, `apply.sql` and `APPLIED` take together.

    Args:
        record: the one to store.
        now: the present moment, as for `store`.
        channel: the one for results.
    """
    return {
        "key": record.key,
        "task_id": record.task_id,
        "name": readable(record.name),
        "state": readable(record.state),
        "barrier": record.barrier,
        "expires_at": _expiry(record, now),
        "body": record.body,
        "rank": record.rank,
        "now": now,
        "never": NEVER,
        "channel": channel,
    }


def batch_values(batch: Sequence[StoredRecord], now: float) -> dict[str, object]:
    """Return what `records.sql` takes for records of one rank and of different keys."""
    return {
        "keys": [record.key for record in batch],
        "task_ids": [record.task_id for record in batch],
        "names": [readable(record.name) for record in batch],
        "states": [readable(record.state) for record in batch],
        "barriers": [record.barrier for record in batch],
        "expiries": [_expiry(record, now) for record in batch],
        "bodies": [record.body for record in batch],
        "rank": batch[0].rank,
        "now": now,
    }


def _expiry(record: StoredRecord, now: float) -> float:
    return float("inf") if record.expires is None else now + record.expires
