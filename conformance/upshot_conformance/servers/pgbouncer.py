"""A private PgBouncer, which stands between clients and a PostgreSQL."""

from __future__ import annotations

import signal
import struct
from collections.abc import Sequence
from typing import ClassVar
from urllib.parse import unquote, urlsplit

from .base import Server
from .ports import LOOPBACK

__all__ = ["PgBouncerServer"]

_SSL_REQUEST = struct.pack("!ii", 8, 80_877_103)  # the code that asks a server for TLS
_NOBODY = f"postgresql://upshot:upshot@{LOOPBACK}:1/postgres"  # port 1 is nobody's


class PgBouncerServer(Server):
    """PgBouncer before one PostgreSQL; the same user and password lead through it.

    Args:
        upstream: the URL of the PostgreSQL: `postgresql://user:password@host:port/database`.
            The default leads nowhere: clients may come, and wait.
        pool_mode: for how long a client keeps a server's connection: `"transaction"`,
            `"session"` or `"statement"`.
        pool_size: connections to the server.
        settings: more lines of the section `[pgbouncer]`: `["server_round_robin = 1"]`.
        start_timeout: seconds it may take until it answers.
    """

    name: ClassVar[str] = "PgBouncer"
    programs: ClassVar[tuple[str, ...]] = ("pgbouncer",)
    how_to_install: ClassVar[str] = "run `make services`, or: apt-get install pgbouncer"
    # It has nothing to save, and what SIGTERM means to it depends on its version.
    stop_signal: ClassVar[signal.Signals] = signal.SIGKILL

    def __init__(
        self,
        upstream: str = _NOBODY,
        *,
        pool_mode: str = "transaction",
        pool_size: int = 20,
        settings: Sequence[str] = (),
        start_timeout: float = 60.0,
    ) -> None:
        super().__init__(start_timeout=start_timeout)
        self._upstream = urlsplit(upstream)
        self._pool_mode = pool_mode
        self._pool_size = pool_size
        self._settings = tuple(settings)

    @property
    def url(self) -> str:
        """The upstream's URL, with `127.0.0.1:<port>` for its host.

        Raises:
            ServerError: it was not started.
        """
        userinfo = self._upstream.netloc.rpartition("@")[0]
        return self._upstream._replace(netloc=f"{userinfo}@{LOOPBACK}:{self.port}").geturl()

    def _prepare(self) -> None:
        place, upstream = self._started(), self._upstream
        user, password = unquote(upstream.username or ""), unquote(upstream.password or "")
        users = place.write("users.txt", f'"{user}" "{password}"\n')
        lines = [
            "[databases]",
            f"* = host={upstream.hostname} port={upstream.port or 5432}",
            "[pgbouncer]",
            f"listen_addr = {LOOPBACK}",
            f"listen_port = {self.port}",
            "unix_socket_dir =",
            "auth_type = scram-sha-256",
            f"auth_file = {users}",
            f"pool_mode = {self._pool_mode}",
            f"default_pool_size = {self._pool_size}",
            "max_client_conn = 500",
            *self._settings,
        ]
        place.write("pgbouncer.ini", "\n".join(lines) + "\n")

    def _command(self) -> list[str]:
        return [str(self._required()), str(self.folder / "pgbouncer.ini")]

    def _answers(self) -> bool:
        with self._connect() as connection:
            connection.sendall(_SSL_REQUEST)
            return connection.recv(1) in (b"N", b"S")
