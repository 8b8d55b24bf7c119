"""What the Redis backend and the Redis broker share: a URL, its connections, scripts, errors.

redis-py's `Redis` object retries by itself, re-sends blocking commands, and costs more than the
server does. So this module keeps redis-py's *connections* (set-up, TLS, authentication, parsing)
and replaces what is above them: no driver retries, one deadline for everything that a call sends
and receives, and a pool that is a deque.
"""

from __future__ import annotations

import functools
import hashlib
import math
import socket
import ssl
from collections import deque
from collections.abc import Sequence
from importlib import resources
from typing import Any, Final, Protocol, cast
from urllib.parse import urlsplit

import redis
from redis.connection import parse_url

from upshot import clock
from upshot.errors import UrlError
from upshot.retrying import DriverErrors
from upshot.url import Url

__all__ = ["DRIVER_ERRORS", "Connection", "RedisClient", "Reply", "Script", "milliseconds", "script"]

Reply = bytes | str | int | float | list["Reply"] | None
"""What a Redis server answers, as redis-py hands it over."""

Argument = str | bytes | int | float

_SCHEMES: Final = {"redis": "redis", "rediss": "rediss", "redis+unix": "unix"}
_LONGEST_EXPIRY: Final = 10**15
"""Milliseconds; about 31 000 years. Redis refuses what overflows 63 bits with the clock added."""

DRIVER_ERRORS: Final = DriverErrors(
    transient=(
        redis.ConnectionError,
        redis.TimeoutError,
        redis.BusyLoadingError,
        redis.ReadOnlyError,
        redis.OutOfMemoryError,
        redis.exceptions.ClusterDownError,  # MasterDownError is one
        redis.exceptions.TryAgainError,
    ),
    permanent=(
        redis.AuthenticationError,
        redis.exceptions.AuthorizationError,
        redis.RedisError,
        ssl.SSLCertVerificationError,
    ),
)


class Connection(Protocol):
    """The part of a redis-py connection that is used here; redis-py's own hints say `Any`."""

    socket_timeout: float | None
    socket_connect_timeout: float | None
    timed: TimedSocket
    until: float

    def connect(self) -> None: ...
    def disconnect(self) -> None: ...
    def pack_commands(self, commands: Sequence[Sequence[Argument]]) -> list[bytes]: ...
    def send_packed_command(self, command: list[bytes]) -> None: ...
    def read_response(self, *, disconnect_on_error: bool = True) -> Any: ...


class TimedSocket:
    """A socket whose every send and receive ends at one moment, `until`, on the monotonic clock.

    redis-py gives each `recv` the whole timeout again, so a server that trickles would never be
    late. With `until` in the past, a receive takes what has arrived already or times out.
    """

    def __init__(self, wrapped: socket.socket, until: float) -> None:
        self._socket = wrapped
        self.until = until

    def recv(self, size: int) -> bytes:
        self._arm()
        try:
            return self._socket.recv(size)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError) as exc:
            raise TimeoutError("timed out") from exc

    def recv_into(self, buffer: bytearray) -> int:
        self._arm()
        try:
            return self._socket.recv_into(buffer)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError) as exc:
            raise TimeoutError("timed out") from exc

    def sendall(self, data: bytes) -> None:
        self._arm()
        try:
            self._socket.sendall(data)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError) as exc:
            raise TimeoutError("timed out") from exc

    def settimeout(self, seconds: float | None) -> None:
        """Do nothing: redis-py would set its own idea of a timeout. `until` decides."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def _arm(self) -> None:
        left = self.until - clock.monotonic()
        self._socket.settimeout(left if left > 0 else 0.0)


class _Timed(redis.connection.AbstractConnection):
    """Mixed into redis-py's connection classes: puts a `TimedSocket` around the socket."""

    timed: TimedSocket
    until: float

    def _connect(self) -> TimedSocket:
        self.timed = TimedSocket(cast("socket.socket", super()._connect()), self.until)
        return self.timed


class _TcpConnection(_Timed, redis.Connection):
    pass


class _TlsConnection(_Timed, redis.SSLConnection):
    pass


class _UnixConnection(_Timed, redis.UnixDomainSocketConnection):
    pass


_CLASSES: Final[dict[object, type[_Timed]]] = {
    redis.Connection: _TcpConnection,
    redis.SSLConnection: _TlsConnection,
    redis.UnixDomainSocketConnection: _UnixConnection,
}


class Script:
    """A Lua script, known to the server by the SHA-1 of its text (that is Redis's protocol)."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


@functools.cache
def script(*names: str) -> Script:
    """Return the script made of the named files in `scripts/`, preludes first."""
    folder = resources.files(__package__) / "scripts"
    return Script("\n".join((folder / f"{name}.lua").read_text("utf-8") for name in names))


def milliseconds(seconds: float | None) -> int:
    """Return an expiry as Redis takes it: rounded up, at least 1; 0 stands for "never"."""
    return 0 if seconds is None else math.ceil(max(1.0, min(seconds * 1000, _LONGEST_EXPIRY)))


class RedisClient:
    """One Redis server as one process uses it; safe to use from any thread.

    Every method that talks to the server takes `timeout`: the seconds that it may take in all,
    opening a connection included. Only the resolution of a host name is beyond its reach.

    Args:
        url: `redis://`, `rediss://` or `redis+unix://`, with redis-py's own parameters. Of these,
            `retry_on_timeout`, `retry_on_error`, `decode_responses`, `encoding` and
            `socket_timeout` have no effect: upshot retries, decodes and counts time by itself.

    Raises:
        UrlError: redis-py does not take a parameter, or the path is no database number.
    """

    def __init__(self, url: Url) -> None:
        self._class, self._options = _driver_options(url)
        self.database = int(self._options.get("db") or 0)
        self._idle: deque[Connection] = deque()
        self._busy: set[Connection] = set()
        self._closed = False

    def call(self, *command: Argument, timeout: float) -> Reply:
        """Send one command and return its answer; an error answer is raised."""
        answer = self._exchange([command], timeout)[0]
        if isinstance(answer, redis.ResponseError):
            raise answer
        return answer

    def run(
        self, lua: Script, calls: Sequence[tuple[Sequence[str], Sequence[Argument]]], timeout: float
    ) -> list[Reply]:
        """Run a script once per (keys, arguments), in order, in one round trip.

        A server that does not know the script (restart, fail-over, SCRIPT FLUSH) gets it in a
        second round trip.

        Raises:
            redis.ResponseError: the first error answer; the other calls were made all the same.
        """
        deadline = clock.Deadline(timeout)
        commands = [("EVALSHA", lua.sha, len(keys), *keys, *args) for keys, args in calls]
        answers = self._exchange(commands, timeout)
        unknown = [
            i for i, answer in enumerate(answers) if isinstance(answer, redis.exceptions.NoScriptError)
        ]
        if unknown:
            again = [("EVAL", lua.text, *commands[i][2:]) for i in unknown]
            for i, answer in zip(unknown, self._exchange(again, deadline.left() or 0.0), strict=True):
                answers[i] = answer
        replies: list[Reply] = []
        for answer in answers:
            if isinstance(answer, redis.ResponseError):
                raise answer
            replies.append(answer)
        return replies

    def open(self, timeout: float) -> Connection:
        """Open a connection that is the caller's own, to be given back by `discard`."""
        return self._open(clock.monotonic() + timeout)

    def discard(self, connection: Connection) -> None:
        """Close a connection, whatever state it is in; raises nothing."""
        self._busy.discard(connection)
        connection.disconnect()

    def close(self) -> None:
        """Close every connection. Whoever waits for an answer gets a connection error."""
        self._closed = True
        self._drop_idle()
        for connection in list(self._busy):
            try:
                # Not `disconnect`: the connection belongs to a thread that is reading from it.
                connection.timed.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # the server had closed it already

    def _exchange(
        self, commands: Sequence[Sequence[Argument]], timeout: float
    ) -> list[Reply | redis.ResponseError]:
        """Send commands in one write and return their answers, errors among them."""
        until = clock.monotonic() + timeout
        connection = self._take(until)
        try:
            connection.send_packed_command(connection.pack_commands(commands))
            answers = [_read(connection) for _ in commands]
        except BaseException as exc:  # an answer left unread would be taken for the next one's
            self.discard(connection)
            if isinstance(exc, redis.ConnectionError):
                self._drop_idle()  # what closed this one has closed the others: a restart
            raise
        self._busy.discard(connection)
        self._idle.append(connection)
        if self._closed:
            self._drop_idle()
        return answers

    def _take(self, until: float) -> Connection:
        try:
            connection = self._idle.pop()
        except IndexError:
            return self._open(until)
        connection.timed.until = until
        self._busy.add(connection)
        return connection

    def _open(self, until: float) -> Connection:
        connection = _construct(self._class, self._options)
        left = max(0.001, until - clock.monotonic())
        connection.until = until
        connection.socket_timeout = left
        connection.socket_connect_timeout = min(left, connection.socket_connect_timeout or left)
        try:
            connection.connect()
        except redis.ConnectionError as exc:
            connection.disconnect()
            if isinstance(exc.__context__, ssl.SSLCertVerificationError):
                raise exc.__context__ from None  # it will not pass the next time either
            raise
        self._busy.add(connection)
        if self._closed:
            self.discard(connection)
            raise redis.ConnectionError("this client is closed")
        return connection

    def _drop_idle(self) -> None:
        while True:
            try:
                self._idle.pop().disconnect()
            except IndexError:
                return


def _read(connection: Connection) -> Reply | redis.ResponseError:
    try:
        return cast("Reply", connection.read_response())
    except redis.ResponseError as exc:
        return exc


def _driver_options(url: Url) -> tuple[type[_Timed], dict[str, Any]]:
    """Return the connection class and its keywords, checked by making a connection unopened."""
    scheme = _SCHEMES[url.scheme]
    driver_url = url.driver_url(scheme)
    if scheme != "unix":
        database = urlsplit(driver_url).path.strip("/")
        if database and not database.isdecimal():
            raise UrlError(f"{url}: the path is a database number such as /0, not /{database}")
    try:
        options: dict[str, Any] = parse_url(driver_url)
        kind = _CLASSES[options.pop("connection_class", redis.Connection)]
        for name in ("retry_on_timeout", "retry_on_error", "encoding", "decode_responses"):
            options.pop(name, None)
        # RESP2 needs no HELLO: one round trip less to open a connection.
        options.setdefault("protocol", 2)
        if kind is _TlsConnection and options.get("ssl_cert_reqs") != "none":
            options.setdefault("ssl_check_hostname", True)  # redis-py 5 did not by default
        _construct(kind, options)
    except (TypeError, ValueError, redis.RedisError) as exc:
        raise UrlError(f"{url}: redis-py does not take this: {url.scrub(str(exc))}") from exc
    return kind, options


def _construct(kind: type[_Timed], options: dict[str, Any]) -> Connection:
    connection: Any = kind(**options)
    # The names under which redis-py sends CLIENT SETINFO, two round trips, in 8.x and in 5.x.
    connection.driver_info = connection.lib_name = connection.lib_version = None
    return cast("Connection", connection)
