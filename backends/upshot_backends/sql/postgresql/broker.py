"""Messages in a PostgreSQL database.

Service: PostgreSQL 12 or newer, encoded in UTF-8. What it cannot do: push through a proxy that
lends a server's connection for one transaction. There, a worker that waits looks for messages again
and again, at most 0.2 seconds apart. Elsewhere it is woken by LISTEN and NOTIFY.

Layout: see `upshot_backends.sql.broker`.
"""

from __future__ import annotations

from collections.abc import Sequence

from upshot.backend import StoredRecord
from upshot.broker import Action, BrokerCapabilities, Delivery, QueuedMessage, Settlement
from upshot.states import NEVER
from upshot.url import Url
from upshot_backends.sql.broker import SqlBroker
from upshot_backends.sql.connection import Cursor
from upshot_backends.sql.postgresql.connection import PostgresqlDatabase
from upshot_backends.sql.postgresql.messages import PostgresqlMessages
from upshot_backends.sql.postgresql.records import PostgresqlRecords
from upshot_backends.sql.postgresql.waits import BellWatch
from upshot_backends.sql.watch import Watch

__all__ = ["PostgresqlBroker"]


class PostgresqlBroker(SqlBroker):
    """`postgresql://user:password@localhost:5432/database`

    The URLs and parameters are those of `PostgresqlBackend`.
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

    def __init__(self, url: Url, namespace: str) -> None:
        database = PostgresqlDatabase(url)
        messages = PostgresqlMessages(database, namespace)
        super().__init__(database, messages, PostgresqlRecords(database))
        self._server, self._own_messages = database, messages

    def publish(
        self, messages: Sequence[QueuedMessage], records: Sequence[StoredRecord], timeout: float
    ) -> None:
        if not self._is_one_statement(messages, records):
            super().publish(messages, records, timeout)
            return

        def publish(cursor: Cursor) -> None:
            now = self.database.now()
            if records:
                self._own_messages.insert_beside(cursor, messages, records, now)
            else:
                self._own_messages.insert(cursor, messages, now)

        self.database.run(timeout, publish, writes=True)

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
        if settlement.action is not Action.ACK:
            return super()._exchange(
                settlement, record, queues, lease=lease, worker=worker, timeout=timeout
            )

        def exchange(cursor: Cursor) -> tuple[bool, bool, list[Delivery]]:
            now = self.database.now()
            return self._own_messages.exchange(
                cursor,
                settlement.delivery,
                record,
                queues,
                now=now,
                until=now + lease,
                worker=worker,
            )

        return self.database.run(timeout, exchange, writes=True)

    def _is_one_statement(
        self, messages: Sequence[QueuedMessage], records: Sequence[StoredRecord]
    ) -> bool:
        return self._own_messages.is_one_statement(messages) and (
            not records
            or (
                self._records.is_one_statement(records)
                and not any(record.barrier == NEVER for record in records)
            )
        )

    def _watch(self, queues: Sequence[str]) -> Watch:
        return self._server.attach(BellWatch(self._server, self._own_messages, queues))
