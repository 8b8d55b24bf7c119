"""Results in an SQL database.

Service: SQLite 3.35 or newer, on a local file system. What it cannot do: push. Waiters look for
commits of other connections instead, 1 to 20 ms apart; who waits for an id that is forgotten
meanwhile waits until the timeout. On a network file system SQLite's locks do not hold: do not put
the file there.

Layout: table `results`, see `schema`. Expired records are removed by those that store: after every
500 records, or the first one of a minute, up to 1 000 of them, so that what nobody reads is bounded
by what is stored. No reader sees them meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Final

from upshot import clock
from upshot.backend import Backend, Capabilities, StoredRecord
from upshot.retrying import DriverErrors
from upshot.url import Url
from upshot.waiting import Listener
from upshot_backends.sql.connection import Cursor
from upshot_backends.sql.dialects import open_database
from upshot_backends.sql.statements import ResultStatements
from upshot_backends.sql.watch import SqlListener

__all__ = ["SqlBackend", "store_records"]

_LONGEST_PAUSE: Final = 0.02  # seconds between two looks for commits while somebody waits
_SWEEP_RECORDS: Final = 500  # stored records, or
_SWEEP_SECONDS: Final = 60.0  # seconds between two sweeps
_SWEEP_LIMIT: Final = 1000  # expired records removed in one sweep: about 10 ms of the write lock
_PAGE: Final = 1000  # keys per round trip of a scan


class SqlBackend(Backend):
    """`sqlite:///results.db`, relative to the working directory; `sqlite:////srv/results.db`.

    The file is made when first used, for its owner only, with a folder around it if only that is
    missing. `db+sqlite://` and `sqla+sqlite://` mean the same. The URL's one option:

        upshot_table_prefix  what every table's name begins with (default "upshot_")
    """

    capabilities = Capabilities(
        shared=True,
        reread=True,
        intermediate=True,
        atomic=True,
        push=False,
        persistent=True,
        transactional=True,
        batch=True,
        scan=True,
        visibility=0.0,
        poll_interval=0.05,
        expiry_resolution=0.001,
        max_record_bytes=256 * 2**20,  # SQLite's limit for a row is 10^9 bytes
        max_key_bytes=1024,
        text_keys=True,
    )
    driver_errors = DriverErrors()  # `Database` reads them: they differ by code, not by class

    def __init__(self, url: Url) -> None:
        self.database = open_database(url)
        self._sql = ResultStatements(self.database.schema, self.database.dialect)
        self._unswept = 0
        self._next_sweep = clock.monotonic()

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        now = clock.now()
        with self.database.write(timeout) as cursor:
            answers = store_records(cursor, self._sql, records, now)
            self._unswept += len(records)
            if self._unswept >= _SWEEP_RECORDS or clock.monotonic() >= self._next_sweep:
                cursor.execute(self._sql.sweep, {"now": now, "limit": _SWEEP_LIMIT})
                self._unswept = 0
                self._next_sweep = clock.monotonic() + _SWEEP_SECONDS
        return answers

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | None]:
        now = clock.now()
        with self.database.read(timeout) as cursor:
            if len(keys) == 1:
                cursor.execute(self._sql.load_one, {"key": keys[0], "now": now})
                return [body for (body,) in cursor.fetchall()] or [None]
            cursor.execute(self._sql.load, {"keys": json.dumps(keys), "now": now})
            bodies = dict(cursor.fetchall())
        return [bodies.get(key) for key in keys]

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        with self.database.write(timeout) as cursor:
            cursor.executemany(self._sql.delete, [{"key": key} for key in keys])

    def close(self) -> None:
        self.database.close()

    def listen(self, timeout: float) -> Listener:
        return SqlListener(self.database.watch(_LONGEST_PAUSE))

    def scan(self, prefix: str, timeout: float) -> Iterator[str]:
        last: str | None = None
        while True:
            values = {"first": last or prefix, "now": clock.now(), "limit": _PAGE}
            with self.database.read(timeout) as cursor:
                cursor.execute(self._sql.scan, values)
                page: list[str] = [key for (key,) in cursor.fetchall()]
            for key in page:
                if not key.startswith(prefix):  # in order: all that do were before it
                    return
                if key != last:
                    yield key
                last = key
            if len(page) < _PAGE:
                return


def store_records(
    cursor: Cursor, sql: ResultStatements, records: Sequence[StoredRecord], now: float
) -> list[bool]:
    """Store records under the guard, in the caller's transaction; tell which ones applied."""
    answers: list[bool] = []
    for record in records:
        cursor.execute(
            sql.store,
            {
                "key": record.key,
                "task_id": record.task_id,
                "name": record.name,
                "state": record.state,
                "barrier": record.barrier,
                "rank": record.rank,
                "stored_at": now,
                "expires_at": None if record.expires is None else now + record.expires,
                "body": record.body,
                "now": now,
            },
        )
        answers.append(cursor.rowcount == 1)
    return answers
