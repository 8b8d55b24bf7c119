"""Results in a MySQL or MariaDB database.

Service: MariaDB 10.6 or newer, MySQL 8.0 or newer, with InnoDB. What they cannot do: push. Waiters
read what they wait for again and again, at most 50 ms apart; who waits for an id that is forgotten
meanwhile waits until the timeout. How long a record can be is up to the server's setting
`max_allowed_packet`: 11 MiB where it has MariaDB's default, 16 MiB.

Layout and expiry: see `upshot_backends.sql.results`.
"""

from __future__ import annotations

import dataclasses
from typing import Final

from upshot.backend import Capabilities
from upshot.url import Url
from upshot_backends.sql.mysql.connection import MysqlDatabase
from upshot_backends.sql.mysql.records import MysqlRecords
from upshot_backends.sql.results import SqlBackend

__all__ = ["MysqlBackend"]

_AROUND: Final = 64 * 2**10  # bytes of a statement that are not the body: far more than there are


class MysqlBackend(SqlBackend):
    """`mysql://user:password@localhost:3306/database`, `mariadb://…`

    Several hosts are tried in order: `mariadb://a,b/database`. `mysql+pymysql://`,
    `mariadb+pymysql://` and these with `db+` or `sqla+` before them mean the same. The URL's one
    option:

        upshot_table_prefix  what every table's name begins with (default "upshot_")

    All others are PyMySQL's (`unix_socket`, `ssl_ca`, `ssl_verify_identity`, `connect_timeout` in
    seconds, …). Any `ssl_…` parameter asks for TLS, and for a certificate that is checked, with the
    host's name in it, unless `ssl_verify_cert=no` or `ssl_verify_identity=no`. Without one, TLS is
    used where the server offers it, and nothing is checked. `charset`, `autocommit`,
    `read_timeout` and the like have no effect.
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
        max_record_bytes=11 * 2**20,
        max_key_bytes=1024,
        text_keys=True,
    )

    def __init__(self, url: Url) -> None:
        database = MysqlDatabase(url, self._learn)
        super().__init__(database, MysqlRecords(database))

    def _learn(self, largest_packet: int) -> None:
        """Narrow what is declared, where a server takes less; a body travels in Base64."""
        largest = (largest_packet - _AROUND) // 4 * 3
        if 0 < largest < self.capabilities.max_record_bytes:
            self.capabilities = dataclasses.replace(self.capabilities, max_record_bytes=largest)
