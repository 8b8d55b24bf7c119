"""Results in an SQL database: what is the same on every service.

Layout: table `results`, see `schema`. Expired records are removed by those that store: after every
500 records, or the first one of a minute, up to 1 000 of them, so that what nobody reads is bounded
by what is stored. No reader sees them meanwhile. What a broker stores is not counted: the outcome
that ends a delivery takes the place of a record that was.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final

from upshot import clock
from upshot.backend import Backend, StoredRecord
from upshot.errors import ServiceError
from upshot.retrying import DriverErrors
from upshot_backends.sql.connection import Cursor, Database
from upshot_backends.sql.paging import PAGE, keys_in_pages
from upshot_backends.sql.records import Records

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from upshot.finding import Finding
    from upshot.url import Url

__all__ = ["SqlBackend"]

_SWEEP_RECORDS: Final = 500  # stored records, or
_SWEEP_SECONDS: Final = 60.0  # seconds between two sweeps
_SWEEP_LIMIT: Final = 1000  # expired records removed in one sweep: about 10 ms of work
_SWEEP_PATIENCE: Final = 1.0  # seconds that a store may be held up by a sweep


class SqlBackend(Backend):
    """Each service's own class derives from this one, and says what that service can do.

    Args:
        database: the tables.
        records: how the service reads and writes them.
    """

    driver_errors: ClassVar = (
        DriverErrors()
    )  # `Database` reads them: they differ by code, not by class

    def __init__(self, database: Database, records: Records) -> None:
        self.database = database
        self.records = records
        self._unswept = 0
        self._next_sweep = clock.monotonic()

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        if not records:
            return []
        deadline = clock.Deadline(timeout)
        if self.records.is_one_statement(records):
            answers = self.database.run(
                timeout,
                lambda cursor: self.records.store(cursor, records, self.database.now()),
                writes=True,
            )
        else:
            with self.database.write(timeout) as cursor:
                answers = self.records.store(cursor, records, self.database.now())
        self._unswept += len(records)
        if self._unswept >= _SWEEP_RECORDS or clock.monotonic() >= self._next_sweep:
            self._unswept = 0
            self._next_sweep = clock.monotonic() + _SWEEP_SECONDS
            with contextlib.suppress(ServiceError):  # the records are stored; the next one sweeps
                self.sweep(_SWEEP_LIMIT, deadline.left(_SWEEP_PATIENCE) or 0.0)
        return answers

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | None]:
        if not keys:
            return []
        return self.database.run(
            timeout, lambda cursor: self.records.load(cursor, keys, self.database.now())
        )

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        if keys:
            self.database.run(
                timeout, lambda cursor: self.records.delete(cursor, keys), writes=True
            )

    def close(self) -> None:
        self.database.close()

    def scan(self, prefix: str, timeout: float) -> Iterator[str]:
        return keys_in_pages(
            lambda first: self.database.run(timeout, partial(self._page, first)), prefix
        )

    def _page(self, first: str, cursor: Cursor) -> list[str]:
        return self.records.scan(cursor, first, self.database.now(), PAGE)

    def sweep(self, limit: int, timeout: float) -> int:
        """Remove up to `limit` records that have expired, in one short transaction.

        Returns how many were removed: fewer than `limit` when none is left. Several may sweep at
        once; what another one is removing is left to it.
        """
        with self.database.write(timeout) as cursor:
            return self.records.sweep(cursor, self.database.now(), limit)

    def ddl(self) -> str:
        """Return the statements that create all tables, those of the broker too.

        Where one of them cannot be repeated, a comment before them says so.
        """
        statements = self.database.schema.creation(self.database.dialect)
        lines = [f"{statement};" for statement in statements]
        indexes = [each for each in statements if each.startswith("CREATE INDEX ")]
        if not all(each.startswith("CREATE INDEX IF NOT EXISTS ") for each in indexes):
            lines.insert(0, "-- Run once: an index that is there already is an error here.")
        return "\n\n".join(lines)

    def diagnose(self, timeout: float) -> Sequence[Finding]:
        """See `upshot.backend.Diagnosing`."""
        return self.database.diagnosis.diagnose(timeout)

    def advise(self, said: str) -> str:
        """See `upshot.backend.Diagnosing`."""
        return self.database.diagnosis.advise(said)

    def rehearsal(self, timeout: float) -> AbstractContextManager[Url | None]:
        """See `upshot.backend.Rehearsing`."""
        return self.database.diagnosis.rehearsal(timeout)
