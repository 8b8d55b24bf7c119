"""Messages in a MySQL or MariaDB database.

Service: MariaDB 10.6 or newer, MySQL 8.0 or newer, with InnoDB. What they cannot do: push. A worker
that waits looks for messages again and again, at most 0.2 seconds apart. MariaDB before 10.8 has no
descending indexes: there, workers on one long queue get in each other's way.

Layout: see `upshot_backends.sql.broker`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from upshot.broker import BrokerCapabilities
from upshot.url import Url
from upshot_backends.sql.broker import SqlBroker
from upshot_backends.sql.mysql.connection import MysqlDatabase
from upshot_backends.sql.mysql.messages import MysqlMessages
from upshot_backends.sql.mysql.records import MysqlRecords
from upshot_backends.sql.polling import PollingWatch
from upshot_backends.sql.watch import Watch

__all__ = ["MysqlBroker"]

_LONGEST_PAUSE: Final = 0.2  # seconds between two looks for messages


class MysqlBroker(SqlBroker):
    """`mysql://user:password@localhost:3306/database`, `mariadb://…`

    The URLs and parameters are those of `MysqlBackend`.
    """

    capabilities = BrokerCapabilities(
        shared=True,
        persistent=True,
        deduplicates=True,
        ranks_queues=True,
        counts_leased=True,
        longest_lease=None,
        max_message_bytes=11 * 2**20,
    )

    def __init__(self, url: Url, namespace: str) -> None:
        database = MysqlDatabase(url)
        super().__init__(database, MysqlMessages(database, namespace), MysqlRecords(database))

    def _watch(self, queues: Sequence[str]) -> Watch:
        return self.database.attach(PollingWatch(_LONGEST_PAUSE))
