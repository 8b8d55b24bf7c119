"""A private MariaDB."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from .base import Server
from .passwords import new_password
from .ports import LOOPBACK
from .programs import find_program

__all__ = ["MariaDBServer"]

_USER = "upshot"
_GREETING = 10  # the handshake's protocol version; 255 would be an error packet


class MariaDBServer(Server):
    """MariaDB with a database and a user `upshot`, behind a random password.

    Commits are not synced to the disk: they survive `kill()`, not a crash of the machine.

    Args:
        arguments: more command-line arguments: `["--max-connections=20"]`.
        start_timeout: seconds that making the system tables, and then the server, may take.
    """

    name: ClassVar[str] = "MariaDB"
    programs: ClassVar[tuple[str, ...]] = ("mariadbd",)
    how_to_install: ClassVar[str] = (
        "run `make services`, or: apt-get install mariadb-server-core mariadb-client-core"
    )

    def __init__(self, *, arguments: Sequence[str] = (), start_timeout: float = 60.0) -> None:
        super().__init__(start_timeout=start_timeout)
        self._password = new_password()
        self._arguments = tuple(arguments)

    @classmethod
    def installed(cls) -> bool:
        """True when the server is there, and the two programs that make its system tables."""
        tools = ("mariadb-install-db", "my_print_defaults")
        return super().installed() and all(find_program([tool], cls.places) for tool in tools)

    @property
    def url(self) -> str:
        """`mariadb://upshot:<password>@127.0.0.1:<port>/upshot`.

        Raises:
            ServerError: the server was not started.
        """
        return f"mariadb://{_USER}:{self._password}@{LOOPBACK}:{self.port}/{_USER}"

    def _prepare(self) -> None:
        make_tables = ["mariadb-install-db", "--no-defaults", f"--datadir={self._data}"]
        make_tables += ["--auth-root-authentication-method=normal", "--skip-test-db"]
        make_tables += ["--skip-name-resolve", f"--tmpdir={self.folder}"]
        self._run(make_tables, self.folder)
        account = f"'{_USER}'@'{LOOPBACK}'"
        self._started().write(
            "init.sql",
            f"CREATE DATABASE IF NOT EXISTS {_USER} CHARACTER SET utf8mb4;\n"
            f"CREATE OR REPLACE USER {account} IDENTIFIED BY '{self._password}';\n"
            f"GRANT ALL ON *.* TO {account} WITH GRANT OPTION;\n"
            # The installer's root has no password, and any local user can reach the port.
            "DROP USER IF EXISTS 'root'@'localhost', 'root'@'127.0.0.1', 'root'@'::1';\n",
        )

    def _command(self) -> list[str]:
        settings = {
            "datadir": str(self._data),
            # Its own: a server that starts removes what others keep in a common one.
            "tmpdir": str(self.folder),
            "init-file": str(self.folder / "init.sql"),
            "bind-address": LOOPBACK,
            "port": str(self.port),
            "socket": str(self.folder / "mariadb.sock"),
            "pid-file": str(self.folder / "mariadb.pid"),
            "innodb-flush-log-at-trx-commit": "2",  # to the kernel at each commit, no fsync
        }
        options = [f"--{key}={value}" for key, value in settings.items()]
        # `--no-defaults` must come first: it keeps /etc/mysql out.
        options = ["--no-defaults", "--skip-name-resolve", *options]
        return [str(self._required()), *options, *self._arguments]

    def _answers(self) -> bool:
        with self._connect() as connection:
            packet = connection.recv(5)  # four bytes of header, one of protocol version
            return len(packet) == 5 and packet[4] == _GREETING

    @property
    def _data(self) -> Path:
        return self.folder / "data"
