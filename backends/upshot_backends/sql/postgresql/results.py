"""Results in a PostgreSQL database.

Service: PostgreSQL 12 or newer, encoded in UTF-8. What it cannot do: push through a proxy that
lends a server's connection for one transaction (PgBouncer with `pool_mode=transaction`). There,
waiters read what they wait for again and again, at most 50 ms apart.

Waiters are woken by LISTEN and NOTIFY, one channel for all results of one set of tables, so that
every process with waiters hears of each result. PostgreSQL keeps notifications for a waiting
process that is stopped (SIGSTOP, a debugger) until it goes on, or its connection is ended.

Layout and expiry: see `upshot_backends.sql.results`.
"""

from __future__ import annotations

import dataclasses

from upshot.backend import Capabilities
from upshot.listening import Listener
from upshot.url import Url
from upshot_backends.sql.postgresql.connection import PostgresqlDatabase
from upshot_backends.sql.postgresql.records import PostgresqlRecords
from upshot_backends.sql.postgresql.waits import listen
from upshot_backends.sql.results import SqlBackend

__all__ = ["PostgresqlBackend"]


class PostgresqlBackend(SqlBackend):
    """`postgresql://user:password@localhost:5432/database`

    Several hosts are tried in order: `postgresql://a,b/database`. `postgres://`,
    `postgresql+psycopg://` and these with `db+` or `sqla+` before them mean the same. Options:

        upshot_schema        the database schema that holds the tables (default: the user's own)
        upshot_table_prefix  what every table's name begins with (default "upshot_")
        upshot_listen        "no" where LISTEN does not work; otherwise that is found out (default
                             "yes")

    All others are libpq's (`sslmode`, `sslrootcert`, `application_name`, `options`, …).
    """

    capabilities = Capabilities(
        shared=True,
        reread=True,
        intermediate=True,
        atomic=True,
        push=True,
        persistent=True,
        transactional=True,
        batch=True,
        scan=True,
        streams=True,
        visibility=0.0,
        poll_interval=0.05,
        expiry_resolution=0.001,
        max_record_bytes=256 * 2**20,  # the server's limit for a value is 1 GB
        max_key_bytes=1024,  # an index takes 2704 bytes
        text_keys=True,
    )

    def __init__(self, url: Url) -> None:
        database = PostgresqlDatabase(url)
        super().__init__(database, PostgresqlRecords(database))
        self._server = database
        self._narrow()

    def listen(self, timeout: float) -> Listener | None:
        listener = listen(self._server, timeout)
        self._narrow()
        return listener

    def _narrow(self) -> None:
        """Withdraw what is declared, where notifications do not come through."""
        if self.capabilities.push and not self._server.hears:
            self.capabilities = dataclasses.replace(self.capabilities, push=False)
