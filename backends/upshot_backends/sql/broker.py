"""Messages in an SQL database: what is the same on every service.

Layout: tables `messages`, `dead_letters` and `workers`, see `schema`. A lease is a moment on the
wall clock of the service: a step of that clock by more than a lease's length delivers messages
again, or late.
"""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Final

from upshot import clock
from upshot.backend import Backend, StoredRecord
from upshot.broker import Broker, Delivery, QueuedMessage, QueueStatus, Settlement
from upshot.retrying import DriverErrors
from upshot_backends.sql.connection import Cursor, Database
from upshot_backends.sql.messages import Messages
from upshot_backends.sql.records import Records
from upshot_backends.sql.results import SqlBackend
from upshot_backends.sql.watch import Watch

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from upshot.finding import Finding
    from upshot.url import Url

__all__ = ["SqlBroker"]

_FETCH_TIMEOUT: Final = 5.0  # seconds for each round trip of `fetch`, which is not told any
_SIGNS: Final = 3  # signs of life that `fetch` gives in the time of one lease
_LOCKED_PAUSE: Final = 0.01  # seconds before another look for messages that others have locked


class SqlBroker(Broker):
    """Each service's own class derives from this one, and says what that service can do.

    Args:
        database: the tables.
        messages: how the service reads and writes messages.
        records: how it stores the records that come with messages.
    """

    # `Database` reads them: they differ by code, not by class.
    driver_errors: ClassVar = DriverErrors()

    def __init__(self, database: Database, messages: Messages, records: Records) -> None:
        self.database = database
        self._messages = messages
        self._records = records
        self._watches: list[tuple[tuple[str, ...], Watch]] = []
        self._signed: tuple[str, tuple[str, ...]] | None = None
        self._next_sign = 0.0

    @abc.abstractmethod
    def _watch(self, queues: Sequence[str]) -> Watch:
        """Make a watch for what is published to some queues."""

    def joins(self, backend: Backend) -> bool:
        return (
            isinstance(backend, SqlBackend) and backend.database.identity == self.database.identity
        )

    def publish(
        self, messages: Sequence[QueuedMessage], records: Sequence[StoredRecord], timeout: float
    ) -> None:
        with self.database.write(timeout) as cursor:
            now = self.database.now()
            self._messages.insert(cursor, messages, now)
            if records:
                self._records.store(cursor, records, now, tell=False)

    def fetch(
        self, queues: Sequence[str], *, limit: int, wait: float, lease: float, worker: str
    ) -> Sequence[Delivery]:
        deadline, queues = clock.Deadline(wait), tuple(dict.fromkeys(queues))
        self._sign(worker, queues, lease, _FETCH_TIMEOUT)
        with self._watching(queues) as watch:
            while True:
                # Where a look costs as much as a claim, the claim comes first.
                due_in = 0.0 if self._messages.claims_first else self._due_in(queues)
                if due_in <= 0:
                    deliveries = self._claim(queues, limit, lease, worker)
                    if deliveries:
                        watch.hurry()
                        return deliveries
                    # What is due but cannot be had, others hold locked for a moment.
                    due_in = max(_LOCKED_PAUSE, self._due_in(queues))
                if deadline.expired:
                    return []
                watch.wait(deadline.left(due_in) or 0.0)

    def settle(self, settlements: Sequence[Settlement], timeout: float) -> Sequence[bool]:
        if not settlements:
            return []
        if self._messages.is_one_settlement(settlements):
            return self.database.run(
                timeout,
                lambda cursor: self._messages.settle(cursor, settlements, self.database.now()),
                writes=True,
            )
        with self.database.write(timeout) as cursor:
            return self._messages.settle(cursor, settlements, self.database.now())

    def exchange(
        self,
        settlement: Settlement,
        record: StoredRecord | None,
        queues: Sequence[str],
        *,
        lease: float,
        worker: str,
        timeout: float,
    ) -> tuple[bool, bool, Sequence[Delivery]]:
        """See `upshot.broker.Exchanging`; if claiming fails, nothing is settled or stored."""
        deadline, queues = clock.Deadline(timeout), tuple(dict.fromkeys(queues))
        self._sign(worker, queues, lease, timeout)
        return self._exchange(
            settlement,
            record,
            queues,
            lease=lease,
            worker=worker,
            timeout=deadline.left() or 0.0,
        )

    def _exchange(
        self,
        settlement: Settlement,
        record: StoredRecord | None,
        queues: tuple[str, ...],
        *,
        lease: float,
        worker: str,
        timeout: float,
    ) -> tuple[bool, bool, Sequence[Delivery]]:
        with self.database.write(timeout) as cursor:
            now = self.database.now()
            # The message before its record, as in `publish`: who meets locks rows in one order.
            (ours,) = self._messages.settle(cursor, [settlement], now)
            applied = record is not None and self._records.store(cursor, [record], now)[0]
            found = self._messages.claim(
                cursor, queues, 1, now=now, until=now + lease, worker=worker
            )
        return applied, ours, found

    def beat(
        self,
        worker: str,
        queues: Sequence[str],
        deliveries: Sequence[Delivery],
        *,
        lease: float,
        timeout: float,
    ) -> Sequence[bool]:
        with self.database.write(timeout) as cursor:
            now = self.database.now()
            self._messages.sign_only(cursor, worker, queues, now=now, until=now + lease)
            answers = self._messages.renew(cursor, deliveries, now + lease)
        self._signed = (worker, tuple(queues)) if queues else None
        self._next_sign = clock.monotonic() + lease / _SIGNS
        return answers

    def survey(self, queues: Sequence[str], timeout: float) -> Mapping[str, QueueStatus]:
        def look(cursor: Cursor) -> dict[str, QueueStatus]:
            now = self.database.now()
            return {queue: self._messages.status(cursor, queue, now) for queue in queues}

        return self.database.run(timeout, look)

    def purge(self, queues: Sequence[str], timeout: float) -> int:
        with self.database.write(timeout) as cursor:
            now = self.database.now()
            return sum(self._messages.purge(cursor, queue, now) for queue in dict.fromkeys(queues))

    def close(self) -> None:
        self.database.close()

    def diagnose(self, timeout: float) -> Sequence[Finding]:
        """See `upshot.backend.Diagnosing`."""
        return self.database.diagnosis.diagnose(timeout)

    def advise(self, said: str) -> str:
        """See `upshot.backend.Diagnosing`."""
        return self.database.diagnosis.advise(said)

    def rehearsal(self, timeout: float) -> AbstractContextManager[Url | None]:
        """See `upshot.backend.Rehearsing`."""
        return self.database.diagnosis.rehearsal(timeout)

    # -- fetching -------------------------------------------------------------------------------

    def _sign(self, worker: str, queues: tuple[str, ...], lease: float, timeout: float) -> None:
        """Give a sign of life, unless one was given a moment ago."""
        if self._signed != (worker, queues) or clock.monotonic() >= self._next_sign:
            self.beat(worker, queues, [], lease=lease, timeout=timeout)

    @contextlib.contextmanager
    def _watching(self, queues: tuple[str, ...]) -> Generator[Watch]:
        """Lend a watch that no other thread waits on; it stays open for the next `fetch`."""
        try:
            watched, watch = self._watches.pop()
        except IndexError:
            watch = self._watch(queues)
        else:
            if watched != queues:
                watch.close()
                watch = self._watch(queues)
        try:
            yield watch
        finally:
            watch.rest()
            self._watches.append((queues, watch))

    def _due_in(self, queues: Sequence[str]) -> float:
        return self.database.run(
            _FETCH_TIMEOUT,
            lambda cursor: self._messages.next_due(cursor, queues) - self.database.now(),
        )

    def _claim(
        self, queues: Sequence[str], limit: int, lease: float, worker: str
    ) -> list[Delivery]:
        def claim(cursor: Cursor) -> list[Delivery]:
            now = self.database.now()
            return self._messages.claim(
                cursor, queues, limit, now=now, until=now + lease, worker=worker
            )

        if self._messages.is_one_claim(queues):
            return self.database.run(_FETCH_TIMEOUT, claim, writes=True)
        with self.database.write(_FETCH_TIMEOUT) as cursor:
            return claim(cursor)
