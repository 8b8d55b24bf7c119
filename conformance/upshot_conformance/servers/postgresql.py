"""A private PostgreSQL."""

from __future__ import annotations

import signal
import struct
import subprocess
from collections.abc import Sequence
from typing import ClassVar

from .base import Server
from .passwords import new_password
from .ports import LOOPBACK

__all__ = ["PostgreSQLServer"]

_USER = "upshot"
_PROTOCOL_3_0 = 196_608  # major version 3 in the upper 16 bits


class PostgreSQLServer(Server):
    """PostgreSQL with one superuser, `upshot`, behind a random password.

    Commits are not synced to the disk: they survive `kill()`, not a crash of the machine.

    Args:
        arguments: more command-line arguments: `["-c", "max_connections=20"]`.
        start_timeout: seconds that `initdb`, and then the server, may take.
    """

    name: ClassVar[str] = "PostgreSQL"
    programs: ClassVar[tuple[str, ...]] = ("postgres",)
    places: ClassVar[tuple[str, ...]] = (
        "/usr/lib/postgresql/*/bin",  # Debian, Ubuntu
        "/usr/pgsql-*/bin",  # Fedora, Red Hat
        *Server.places,
    )
    how_to_install: ClassVar[str] = "run `make services`, or: apt-get install postgresql"
    # SIGTERM would wait for every client to leave; SIGINT is PostgreSQL's "fast" shutdown.
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT

    def __init__(self, *, arguments: Sequence[str] = (), start_timeout: float = 60.0) -> None:
        super().__init__(start_timeout=start_timeout)
        self._password = new_password()
        self._arguments = tuple(arguments)

    @property
    def url(self) -> str:
        """`postgresql://upshot:<password>@127.0.0.1:<port>/postgres`.

        Raises:
            ServerError: the server was not started.
        """
        return f"postgresql://{_USER}:{self._password}@{LOOPBACK}:{self.port}/postgres"

    def _prepare(self) -> None:
        password = self._started().write("password", self._password)
        # PATH may hold a link to `postgres` alone; its `initdb` lies beside the real file.
        initdb = self._required().resolve().with_name("initdb")
        options = f"-U {_USER} --no-sync --encoding=UTF8 --locale=C --auth=scram-sha-256".split()
        data = str(self.folder / "data")
        self._run([str(initdb), "-D", data, f"--pwfile={password}", *options], self.folder)

    def _command(self) -> list[str]:
        settings = {
            "listen_addresses": LOOPBACK,
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "200",
            "fsync": "off",
            "full_page_writes": "off",
            "dynamic_shared_memory_type": "mmap",  # files in the folder, not in /dev/shm
        }
        options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        data = ["-D", str(self.folder / "data")]
        return [str(self._required().resolve()), *data, *options, *self._arguments]

    def _answers(self) -> bool:
        parameters = f"user\0{_USER}\0database\0postgres\0\0".encode()
        head = struct.pack("!ii", 8 + len(parameters), _PROTOCOL_3_0)
        with self._connect() as connection:
            connection.sendall(head + parameters)
            # "R" asks for the password; "E" is an error such as "the database is starting up".
            return connection.recv(1) == b"R"

    def _release(self) -> None:
        # A killed PostgreSQL leaves a System V segment, named by line 7 of its lock file.
        lock = self._workplace.folder / "data" / "postmaster.pid" if self._workplace else None
        if not lock or not lock.exists():
            return
        lines = lock.read_text(encoding="utf-8").splitlines()
        if len(lines) > 6 and lines[6].split():
            segment = lines[6].split()[-1]
            subprocess.run(["ipcrm", "-m", segment], capture_output=True, check=False)
