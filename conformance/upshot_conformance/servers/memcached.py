"""A private memcached."""

from __future__ import annotations

import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from .base import Server
from .ensemble import Ensemble
from .ports import LOOPBACK

__all__ = ["MemcachedServer", "MemcachedServers"]


class MemcachedServer(Server):
    """memcached over TCP, without UDP. It keeps nothing across `restart()`.

    Args:
        unix_socket: listen on a socket file only, not on TCP.
        megabytes: memory for items; a small number makes it evict.
        arguments: more command-line arguments: `["-I", "4m"]`.
        start_timeout: seconds the server may take until it answers.
    """

    name: ClassVar[str] = "memcached"
    programs: ClassVar[tuple[str, ...]] = ("memcached",)
    how_to_install: ClassVar[str] = "run `make services`, or: apt-get install memcached"
    # It has nothing to save, and would take a second to notice a SIGTERM.
    stop_signal: ClassVar[signal.Signals] = signal.SIGKILL

    def __init__(
        self,
        *,
        unix_socket: bool = False,
        megabytes: int = 64,
        arguments: Sequence[str] = (),
        start_timeout: float = 60.0,
    ) -> None:
        super().__init__(start_timeout=start_timeout)
        self._unix_socket = unix_socket
        self._megabytes = megabytes
        self._arguments = tuple(arguments)

    @property
    def url(self) -> str:
        """`memcached://127.0.0.1:<port>`, or `memcached://<file>`.

        Raises:
            ServerError: the server was not started.
        """
        if self._unix_socket:
            return f"memcached://{self.socket_path}"
        return f"memcached://{LOOPBACK}:{self.port}"

    @property
    def socket_path(self) -> Path:
        """The socket file; there only with `unix_socket`."""
        return self.folder / "memcached.sock"

    def _command(self) -> list[str]:
        if self._unix_socket:
            listen = ["-s", str(self.socket_path)]
        else:
            listen = ["-l", LOOPBACK, "-p", str(self.port), "-U", "0"]
        memory = ["-m", str(self._megabytes)]
        return [str(self._required()), *listen, *memory, *self._arguments]

    def _answers(self) -> bool:
        with self._open() as connection:
            connection.sendall(b"version\r\n")
            return connection.recv(64).startswith(b"VERSION ")

    def _open(self) -> socket.socket:
        if not self._unix_socket:
            return self._connect()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(str(self.socket_path))
        except OSError:
            connection.close()
            raise
        return connection


class MemcachedServers(Ensemble):
    """Several memcached that share the keys among them, as their clients decide.

    Args:
        count: how many.
        start_timeout: seconds that each may take until it answers.
    """

    name: ClassVar[str] = "memcached"

    def __init__(self, *, count: int = 2, start_timeout: float = 60.0) -> None:
        super().__init__(start_timeout=start_timeout)
        self._servers = [MemcachedServer(start_timeout=start_timeout) for _ in range(count)]

    @property
    def servers(self) -> Sequence[Server]:
        """Every server, in the order of the URL."""
        return self._servers

    @property
    def url(self) -> str:
        """`memcached://127.0.0.1:<port>,127.0.0.1:<port>`.

        Raises:
            ServerError: they were not started.
        """
        return f"memcached://{','.join(f'{LOOPBACK}:{each.port}' for each in self._servers)}"

    def _introduce(self) -> None:
        """Do nothing: they never hear of each other."""

    def _is_whole(self) -> bool:
        return True  # each is whole in itself
