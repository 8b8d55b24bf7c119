"""Messages in a PostgreSQL database.

Service: PostgreSQL 12 or newer, encoded in UTF-8. What it cannot do: push through a proxy that
lends a server's connection for one transaction. There, a worker that waits looks for messages again
and again, at most 0.2 seconds apart. Elsewhere it is woken by LISTEN and NOTIFY.

Layout: see `upshot_backends.sql.broker`.
"""

from __future__ import annotations

from collections.abc import Sequence

from upshot.broker import BrokerCapabilities
from upshot.url import Url
from upshot_backends.sql.broker import SqlBroker
from upshot_backends.sql.connection import Watch
from upshot_backends.sql.postgresql.connection import PostgresqlDatabase
from upshot_backends.sql.postgresql.messages import PostgresqlMessages
from upshot_backends.sql.postgresql.records import PostgresqlRecords
from upshot_backends.sql.postgresql.waits import BellWatch

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
        max_message_bytes=256 * 2**20,
    )

    def __init__(self, url: Url, namespace: str) -> None:
        database = PostgresqlDatabase(url)
        messages = PostgresqlMessages(database, namespace)
        super().__init__(database, messages, PostgresqlRecords(database))
        self._server, self._bells = database, messages

    def _watch(self, queues: Sequence[str]) -> Watch:
        return self._server.attach(BellWatch(self._server, self._bells, queues))
