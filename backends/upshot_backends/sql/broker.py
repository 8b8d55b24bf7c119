"""Messages in an SQL database.

Service: SQLite 3.35 or newer, on a local file system, for workers on one machine. What it cannot
do: push. A worker that waits looks for commits of others, 1 to 50 ms apart.

Layout: tables `messages`, `dead_letters` and `workers`, see `schema`. A lease is a moment on the
wall clock: a step of the clock by more than a lease's length delivers messages again, or late.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Generator, Mapping, Sequence
from typing import Final

from upshot import clock
from upshot.backend import Backend, StoredRecord
from upshot.broker import (
    Action,
    Broker,
    BrokerCapabilities,
    Delivery,
    QueuedMessage,
    QueueStatus,
    Settlement,
)
from upshot.retrying import DriverErrors
from upshot.url import Url
from upshot_backends.sql.connection import Cursor, Watch
from upshot_backends.sql.dialects import open_database
from upshot_backends.sql.results import SqlBackend, store_records
from upshot_backends.sql.schema import READY
from upshot_backends.sql.statements import MessageStatements, ResultStatements

__all__ = ["SqlBroker"]

_FETCH_TIMEOUT: Final = 5.0  # seconds for each round trip of `fetch`, which is not told any
_LONGEST_PAUSE: Final = 0.05  # seconds between two looks for commits: 0.4 % of one CPU
_PROMOTED: Final = 1000  # messages that one `fetch` makes ready, so that it holds the lock briefly
_SIGNS: Final = 3  # signs of life that `fetch` gives in the time of one lease


class SqlBroker(Broker):
    """`sqlite:///tasks.db`, relative to the working directory; `sqlite:////srv/tasks.db`.

    The file is made when first used, for its owner only, with a folder around it if only that is
    missing. `db+sqlite://` and `sqla+sqlite://` mean the same. The URL's one option:

        upshot_table_prefix  what every table's name begins with (default "upshot_")
    """

    capabilities = BrokerCapabilities(
        shared=True,
        persistent=True,
        deduplicates=True,
        ranks_queues=True,
        counts_leased=True,
        longest_lease=None,
        max_message_bytes=256 * 2**20,
    )
    driver_errors = DriverErrors()  # `Database` reads them: they differ by code, not by class

    def __init__(self, url: Url, namespace: str) -> None:
        self.database = open_database(url)
        self._namespace = namespace
        self._sql = MessageStatements(self.database.schema, self.database.dialect)
        self._records_sql = ResultStatements(self.database.schema, self.database.dialect)
        self._watches: list[Watch] = []
        self._signed: tuple[str, tuple[str, ...]] | None = None
        self._next_sign = 0.0

    def joins(self, backend: Backend) -> bool:
        return (
            isinstance(backend, SqlBackend) and backend.database.identity == self.database.identity
        )

    def publish(
        self, messages: Sequence[QueuedMessage], records: Sequence[StoredRecord], timeout: float
    ) -> None:
        now = clock.now()
        with self.database.write(timeout) as cursor:
            self._insert(cursor, messages, now)
            store_records(cursor, self._records_sql, records, now)

    def fetch(
        self, queues: Sequence[str], *, limit: int, wait: float, lease: float, worker: str
    ) -> Sequence[Delivery]:
        deadline, queues = clock.Deadline(wait), tuple(dict.fromkeys(queues))
        self._sign(worker, queues, lease)
        with self._watching() as watch:
            while True:
                due_in = self._next_due(queues) - clock.now()
                if due_in <= 0:
                    deliveries = self._claim(queues, limit, lease, worker)
                    if deliveries:
                        watch.hurry()
                        return deliveries
                if deadline.expired:
                    return []
                watch.wait(deadline.left(max(0.0, due_in)) or 0.0)

    def settle(self, settlements: Sequence[Settlement], timeout: float) -> Sequence[bool]:
        now = clock.now()
        with self.database.write(timeout) as cursor:
            return [self._settle(cursor, settlement, now) for settlement in settlements]

    def beat(
        self,
        worker: str,
        queues: Sequence[str],
        deliveries: Sequence[Delivery],
        *,
        lease: float,
        timeout: float,
    ) -> Sequence[bool]:
        now = clock.now()
        with self.database.write(timeout) as cursor:
            cursor.execute(
                self._sql.sign_off, {"namespace": self._namespace, "worker": worker, "now": now}
            )
            for queue in dict.fromkeys(queues):
                sign = {"worker": worker, "seen_until": now + lease}
                cursor.execute(self._sql.sign_in, self._at(queue) | sign)
            answers: list[bool] = []
            for delivery in deliveries:
                cursor.execute(self._sql.renew, self._held(delivery) | {"until": now + lease})
                answers.append(cursor.rowcount == 1)
        self._signed = (worker, tuple(queues)) if queues else None
        self._next_sign = clock.monotonic() + lease / _SIGNS
        return answers

    def survey(self, queues: Sequence[str], timeout: float) -> Mapping[str, QueueStatus]:
        with self.database.read(timeout) as cursor:
            return {queue: self._status(cursor, queue, clock.now()) for queue in queues}

    def purge(self, queues: Sequence[str], timeout: float) -> int:
        removed, now = 0, clock.now()
        with self.database.write(timeout) as cursor:
            for queue in dict.fromkeys(queues):
                cursor.execute(self._sql.purge, self._at(queue) | {"now": now})
                removed += cursor.rowcount
                cursor.execute(self._sql.purge_dead, self._at(queue))
                removed += cursor.rowcount
        return removed

    def close(self) -> None:
        self.database.close()

    # -- parameters -----------------------------------------------------------------------------

    def _at(self, queue: str) -> dict[str, object]:
        return {"namespace": self._namespace, "queue": queue}

    def _held(self, delivery: Delivery) -> dict[str, object]:
        return {
            "namespace": self._namespace,
            "message_id": delivery.message_id,
            "token": delivery.token,
        }

    # -- fetching -------------------------------------------------------------------------------

    def _sign(self, worker: str, queues: tuple[str, ...], lease: float) -> None:
        """Give a sign of life, unless one was given a moment ago."""
        if self._signed != (worker, queues) or clock.monotonic() >= self._next_sign:
            self.beat(worker, queues, [], lease=lease, timeout=_FETCH_TIMEOUT)

    @contextlib.contextmanager
    def _watching(self) -> Generator[Watch]:
        """Lend a watch that no other thread waits on; it stays open for the next `fetch`."""
        try:
            watch = self._watches.pop()
        except IndexError:
            watch = self.database.watch(_LONGEST_PAUSE)
        try:
            yield watch
        finally:
            self._watches.append(watch)

    def _next_due(self, queues: Sequence[str]) -> float:
        """Return when something is due, without asking for the write lock; infinity for never."""
        soonest = float("inf")
        with self.database.read(_FETCH_TIMEOUT) as cursor:
            for queue in queues:
                cursor.execute(self._sql.next_due, self._at(queue))
                ((due_at,),) = cursor.fetchall()
                if due_at is not None:
                    soonest = min(soonest, due_at)
        return soonest

    def _claim(
        self, queues: Sequence[str], limit: int, lease: float, worker: str
    ) -> list[Delivery]:
        now, fetch_id = clock.now(), uuid.uuid4().hex
        ready: list[tuple[int, int, int, str, str, bytes, int]] = []
        with self.database.write(_FETCH_TIMEOUT) as cursor:
            for place, queue in enumerate(queues):
                at = self._at(queue)
                cursor.execute(self._sql.promote, at | {"now": now, "limit": _PROMOTED})
                cursor.execute(self._sql.ready, at | {"limit": limit})
                ready += [
                    (-priority, place, seq, queue, *rest)
                    for seq, priority, *rest in cursor.fetchall()
                ]
            ready.sort()
            del ready[limit:]
            leased = {"until": now + lease, "worker": worker}
            cursor.executemany(
                self._sql.lease,
                [{"seq_": row[2], "token": f"{fetch_id}-{row[2]}", **leased} for row in ready],
            )
        return [
            Delivery(
                message_id=message_id,
                queue=queue,
                body=body,
                deliveries=deliveries + 1,
                token=f"{fetch_id}-{seq}",
            )
            for _, _, seq, queue, message_id, body, deliveries in ready
        ]

    # -- writing --------------------------------------------------------------------------------

    def _insert(self, cursor: Cursor, messages: Sequence[QueuedMessage], now: float) -> None:
        rows = [
            {
                "namespace": self._namespace,
                "queue": message.queue,
                "message_id": message.message_id,
                "priority": message.priority,
                "due_at": READY if message.eta is None or message.eta <= now else message.eta,
                "deliveries": 0,
                "body": message.body,
            }
            for message in messages
        ]
        cursor.executemany(self._sql.publish, rows)

    def _settle(self, cursor: Cursor, settlement: Settlement, now: float) -> bool:
        held = self._held(settlement.delivery)
        if settlement.action is Action.RELEASE:
            cursor.execute(self._sql.release, held)
            return bool(cursor.rowcount == 1)
        if settlement.action is Action.BURY:
            cursor.execute(self._sql.bury, held | {"reason": settlement.reason, "now": now})
        cursor.execute(self._sql.remove, held)
        is_ours = bool(cursor.rowcount == 1)
        if is_ours and settlement.message is not None:
            self._insert(cursor, [settlement.message], now)
        return is_ours

    def _status(self, cursor: Cursor, queue: str, now: float) -> QueueStatus:
        at = self._at(queue) | {"now": now}
        cursor.execute(self._sql.count, at)
        ready, delayed, leased, dead = cursor.fetchall()[0]
        cursor.execute(self._sql.workers, at)
        workers = tuple(name for (name,) in cursor.fetchall())
        return QueueStatus(ready=ready, delayed=delayed, leased=leased, dead=dead, workers=workers)
