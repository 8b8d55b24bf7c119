"""A private Redis (or Valkey)."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Sequence
from io import BufferedRWPair
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

from .base import Server
from .installation import ServerError
from .ports import LOOPBACK
from .programs import find_program

__all__ = ["RedisServer"]


class RedisServer(Server):
    """Redis, without persistence unless asked for it.

    Args:
        tls: listen with TLS only, under a throw-away certificate for 127.0.0.1 that `openssl`
            makes; the URL is `rediss://` and names the certificate.
        unix_socket: listen on a socket file only, not on TCP.
        persistent: keep an append-only file, so that data survives `kill()` and `restart()`.
        password: what clients must give it, and what it gives to a master that it replicates;
            None for nothing. It stands in the URL.
        arguments: more command-line arguments: `["--maxmemory", "2mb"]`.
        start_timeout: seconds the server may take until it answers.

    Raises:
        ValueError: both `tls` and `unix_socket` were asked for.
    """

    name: ClassVar[str] = "Redis"
    programs: ClassVar[tuple[str, ...]] = ("redis-server", "valkey-server")
    how_to_install: ClassVar[str] = "run `make services`, or: apt-get install redis-server"

    def __init__(
        self,
        *,
        tls: bool = False,
        unix_socket: bool = False,
        persistent: bool = False,
        password: str | None = None,
        arguments: Sequence[str] = (),
        start_timeout: float = 60.0,
    ) -> None:
        if tls and unix_socket:
            raise ValueError("a Redis socket file has no TLS: choose tls or unix_socket")
        super().__init__(start_timeout=start_timeout)
        self._tls = tls
        self._unix_socket = unix_socket
        self._persistent = persistent
        self._password = password
        self._arguments = tuple(arguments)

    @property
    def url(self) -> str:
        """`redis://127.0.0.1:<port>/0`, `rediss://…?ssl_ca_certs=<file>` or `redis+unix://<file>`.

        A password stands before the host, as `:password@`.

        Raises:
            ServerError: the server was not started.
        """
        at = f":{quote(self._password, safe='')}@" if self._password else ""
        if self._unix_socket:
            return f"redis+unix://{at}{self.socket_path}"
        if self._tls:
            return f"rediss://{at}{LOOPBACK}:{self.port}/0?ssl_ca_certs={self.certificate}"
        return f"redis://{at}{LOOPBACK}:{self.port}/0"

    @property
    def certificate(self) -> Path:
        """The self-signed certificate, which is its own authority; there only with `tls`."""
        return self.folder / "server.crt"

    @property
    def socket_path(self) -> Path:
        """The socket file; there only with `unix_socket`."""
        return self.folder / "redis.sock"

    def ask(self, *words: str | int) -> str:
        """Send one command on a connection of its own and return what is answered, as text.

        The items of an array come one a line, whatever their nesting; null is "".

        Raises:
            ServerError: an error was answered; the message is the answer.
            OSError: the server cannot be reached, or does not answer in time.
        """
        with self._open() as connection, connection.makefile("rwb") as stream:
            if self._password:
                _send(stream, "AUTH", self._password)
                next(_answer(stream))
            _send(stream, *words)
            return "\n".join(_answer(stream))

    def _prepare(self) -> None:
        if self._tls:
            self._make_certificate()

    def _make_certificate(self) -> None:
        openssl = find_program(["openssl"], self.places)
        if not openssl:
            raise ServerError("a Redis with TLS needs the openssl program: apt-get install openssl")
        make = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
        names = ["-subj", "/CN=upshot private Redis"]
        names += ["-addext", f"subjectAltName=IP:{LOOPBACK},DNS:localhost"]
        files = ["-keyout", str(self.folder / "server.key"), "-out", str(self.certificate)]
        self._run([str(openssl), *make.split(), *names, *files], self.folder)

    def _command(self) -> list[str]:
        plain_port = 0 if self._tls or self._unix_socket else self.port
        command = [str(self._required()), "--bind", LOOPBACK, "--port", str(plain_port)]
        command += ["--dir", str(self.folder), "--daemonize", "no", "--save", ""]
        command += ["--appendonly", "yes" if self._persistent else "no"]
        if self._password:
            command += ["--requirepass", self._password, "--masterauth", self._password]
        if self._unix_socket:
            command += ["--unixsocket", str(self.socket_path)]
        if self._tls:
            command += ["--tls-port", str(self.port), "--tls-auth-clients", "no"]
            command += ["--tls-cert-file", str(self.certificate)]
            command += ["--tls-key-file", str(self.folder / "server.key")]
        return [*command, *self._arguments]

    def _answers(self) -> bool:
        with self._open() as connection:
            connection.sendall(b"PING\r\n")
            # Anything else, as "-LOADING …", means that it does not serve yet.
            return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))

    def _open(self) -> socket.socket:
        if self._unix_socket:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.connect(str(self.socket_path))
            except OSError:
                connection.close()
                raise
            return connection
        if self._tls:
            context = ssl.create_default_context(cafile=str(self.certificate))
            return context.wrap_socket(self._connect(), server_hostname=LOOPBACK)
        return self._connect()


def _send(stream: BufferedRWPair, *words: str | int) -> None:
    """Write one command as RESP."""
    encoded = [str(word).encode() for word in words]
    parts = [b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded]
    stream.write(b"*%d\r\n%b" % (len(parts), b"".join(parts)))
    stream.flush()


def _answer(stream: BufferedRWPair) -> Iterator[str]:
    """Yield the leaves of one RESP2 answer."""
    line = stream.readline().decode().rstrip("\r\n")
    kind, rest = line[:1], line[1:]
    if kind == "-":
        raise ServerError(rest)
    if not kind:
        raise ConnectionError("the server closed the connection")
    if kind == "$":
        yield stream.read(int(rest) + 2)[:-2].decode(errors="replace") if rest != "-1" else ""
    elif kind == "*":
        for _ in range(int(rest)):
            yield from _answer(stream)
    else:
        yield rest
