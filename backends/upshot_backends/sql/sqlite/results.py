"""Results in an SQLite file.

Service: SQLite 3.35 or newer, on a local file system. What it cannot do: push. Waiters look for
commits of other connections instead, when the kernel tells of a write to the file's log; where it
does not (no Linux, or too many such watches), 1 to 20 ms apart. Who waits for an id that is
forgotten meanwhile waits until the timeout. On a network file system SQLite's locks do not hold: do
not put the file there.

Layout and expiry: see `upshot_backends.sql.results`.
"""

from __future__ import annotations

from typing import Final

from upshot.backend import Capabilities
from upshot.listening import Listener
from upshot.url import Url
from upshot_backends.sql.results import SqlBackend
from upshot_backends.sql.sqlite.connection import SqliteDatabase
from upshot_backends.sql.sqlite.records import SqliteRecords
from upshot_backends.sql.sqlite.watch import SqliteListener, SqliteWatch

__all__ = ["SqliteBackend"]

_LONGEST_PAUSE: Final = 0.02  # seconds between two looks for commits while somebody waits


class SqliteBackend(SqlBackend):
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
        streams=True,
        visibility=0.0,
        poll_interval=0.05,
        expiry_resolution=0.001,
        max_record_bytes=256 * 2**20,  # SQLite's limit for a row is 10^9 bytes
        max_key_bytes=1024,
        text_keys=True,
    )

    def __init__(self, url: Url) -> None:
        database = SqliteDatabase(url)
        super().__init__(database, SqliteRecords(database))
        self._file = database

    def listen(self, timeout: float) -> Listener:
        return SqliteListener(self._file.attach(SqliteWatch(self._file, _LONGEST_PAUSE)))
