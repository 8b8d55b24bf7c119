"""Messages in an SQLite file.

Service: SQLite 3.35 or newer, on a local file system, for workers on one machine. What it cannot
do: push. A worker that waits looks for commits of others when the kernel tells of a write to the
file's log; where it does not (no Linux, or too many such watches), 1 to 50 ms apart.

Layout: see `upshot_backends.sql.broker`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from upshot.broker import BrokerCapabilities
from upshot.url import Url
from upshot_backends.sql.broker import SqlBroker
from upshot_backends.sql.sqlite.connection import SqliteDatabase
from upshot_backends.sql.sqlite.messages import SqliteMessages
from upshot_backends.sql.sqlite.records import SqliteRecords
from upshot_backends.sql.sqlite.watch import SqliteWatch
from upshot_backends.sql.watch import Watch

__all__ = ["SqliteBroker"]

_LONGEST_PAUSE: Final = 0.05  # seconds between two looks for commits: 0.4 % of one CPU


class SqliteBroker(SqlBroker):
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

    def __init__(self, url: Url, namespace: str) -> None:
        database = SqliteDatabase(url)
        super().__init__(database, SqliteMessages(database, namespace), SqliteRecords(database))
        self._file = database

    def _watch(self, queues: Sequence[str]) -> Watch:
        return self._file.attach(SqliteWatch(self._file, _LONGEST_PAUSE))
