"""Where upshot meets redis-py: its connections, made from a URL, kept to a deadline, its errors.

redis-py's `Redis` object retries by itself, re-sends blocking commands, and costs more than the
server does. So only its *connections* are used: set-up, TLS, authentication, packing, parsing.
"""

from __future__ import annotations

import functools
import ssl
from collections.abc import Sequence
from typing import Any, Final, Protocol, cast
from urllib.parse import urlencode, urlsplit

import redis
from redis import connection as driver
from redis.exceptions import AuthorizationError, ClusterDownError, TryAgainError

from upshot import clock
from upshot.errors import UrlError
from upshot.retrying import DriverErrors
from upshot.url import Url
from upshot_backends.redis.timed import TimedSocket

__all__ = [
    "DRIVER_ERRORS",
    "Argument",
    "Connection",
    "DemotedError",
    "Options",
    "RefusedForNowError",
    "Reply",
    "connect",
    "driver_options",
    "plain_scheme",
    "read",
    "send",
    "server_options",
]

Argument = str | bytes | int | float
"""What a command is made of."""

Reply = bytes | str | int | float | list["Reply"] | None
"""What a server answers."""

Options = dict[str, Any]
"""Keywords of a redis-py connection class, and that class as `connection_class`."""

_DRIVER_SCHEMES: Final = {"redis+unix": "unix", "rediss": "rediss"}
_OURS: Final = ("retry_on_timeout", "retry_on_error", "encoding", "decode_responses")

_FOR_NOW: Final = ("BUSY ", "MISCONF ", "NOREPLICAS ")
"""A script runs for too long, the disk is full, replicas are missing: plain errors to redis-py."""

_DEMOTED: Final = "UNBLOCKED "
"""What a blocked client hears when its server becomes a replica."""


class RefusedForNowError(redis.ResponseError):
    """An error answer that redis-py has no class for, and that may end by itself."""


class DemotedError(RefusedForNowError):
    """The server is not a master, or is one no longer."""


DRIVER_ERRORS: Final = DriverErrors(
    transient=(
        redis.ConnectionError,
        redis.TimeoutError,
        redis.BusyLoadingError,
        redis.ReadOnlyError,
        redis.OutOfMemoryError,
        ClusterDownError,  # MasterDownError is one
        TryAgainError,
        RefusedForNowError,
    ),
    permanent=(
        redis.AuthenticationError,
        AuthorizationError,
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


def plain_scheme(url: Url) -> str:
    """Return the URL's scheme with `redis` for `valkey`: they speak one protocol."""
    return url.scheme.replace("valkey", "redis", 1)


def driver_options(url: Url) -> Options:
    """Return what `connect` takes for the one server of a URL, which redis-py reads as written.

    Of redis-py's parameters, `retry_on_timeout`, `retry_on_error`, `decode_responses`, `encoding`
    and `socket_timeout` have no effect: upshot retries, decodes and counts time by itself.

    Raises:
        UrlError: redis-py does not take a parameter, the path is no database number, or there are
            several hosts.
    """
    if len(url.hosts) > 1:
        raise UrlError(
            f"{url}: one server has one host; several are for redis+sentinel:// or redis+cluster://"
        )
    scheme = _DRIVER_SCHEMES.get(plain_scheme(url), "redis")
    driver_url = url.driver_url(scheme)
    if scheme != "unix":
        database = urlsplit(driver_url).path.strip("/")
        if database and not database.isdecimal():
            raise UrlError(f"{url}: the path is a database number such as /0, not /{database}")
    return _parsed(driver_url, url, {})


def server_options(
    url: Url, database: str, *, without: str = "", username: str | None, password: str | None
) -> Options:
    """Return what `connect` takes for each of the servers of a URL, but for `host` and `port`.

    Args:
        url: `rediss+…` asks for TLS; its parameters are redis-py's.
        database: its number.
        without: a parameter that is not redis-py's.
        username, password: to log in with; None or "" for none.

    Raises:
        UrlError: redis-py does not take a parameter.
    """
    scheme = "rediss" if plain_scheme(url).startswith("rediss") else "redis"
    query = urlencode([(name, value) for name, value in url.query if name != without])
    login = {"username": username or None, "password": password or None}
    return _parsed(f"{scheme}://localhost/{database}?{query}", url, login)


def _parsed(driver_url: str, url: Url, more: Options) -> Options:
    """Read a redis-py URL, and check it by making a connection without opening it."""
    try:
        options: Options = cast("Any", driver).parse_url(driver_url)
        options.update(more)
        for name in _OURS:
            options.pop(name, None)
        kind = options.setdefault("connection_class", redis.Connection)
        # RESP2 needs no HELLO: one round trip less to open a connection.
        options.setdefault("protocol", 2)
        if kind is redis.SSLConnection and options.get("ssl_cert_reqs") != "none":
            options.setdefault("ssl_check_hostname", True)  # redis-py 5 did not by default
        _construct(options)
    except (TypeError, ValueError, redis.RedisError) as exc:
        raise UrlError(f"{url}: redis-py does not take this: {url.scrub(str(exc))}") from exc
    return options


def connect(options: Options, until: float) -> Connection:
    """Open a connection by `until`, on the monotonic clock.

    Raises:
        redis.RedisError: it cannot be opened, or not in time, or the password is wrong.
        ssl.SSLCertVerificationError: the server's certificate does not pass.
    """
    connection = _construct(options)
    left = max(0.001, until - clock.monotonic())
    connection.until = until
    connection.socket_timeout = left
    connection.socket_connect_timeout = min(left, connection.socket_connect_timeout or left)
    try:
        connection.connect()
    except redis.ConnectionError as exc:
        if isinstance(exc.__context__, ssl.SSLCertVerificationError):
            raise exc.__context__ from None  # it will not pass the next time either
        raise
    return connection


def send(connection: Connection, commands: Sequence[Sequence[Argument]]) -> None:
    """Send commands in one write; each has one answer, to be read in their order."""
    # Text only: hiredis crashes if a signal's handler raises while it turns a number into text
    # (3.5.0), as Ctrl-C does.
    texts = [[x if isinstance(x, str | bytes) else str(x) for x in each] for each in commands]
    connection.send_packed_command(connection.pack_commands(texts))


def read(
    connection: Connection, *, disconnect_on_error: bool = True
) -> Reply | redis.ResponseError:
    """Return the next answer; an error answer is returned too, the connection stays usable."""
    try:
        return cast("Reply", connection.read_response(disconnect_on_error=disconnect_on_error))
    except redis.ResponseError as exc:
        text = str(exc)
        if text.startswith(_DEMOTED):
            return DemotedError(text)
        return RefusedForNowError(text) if text.startswith(_FOR_NOW) else exc


def _construct(options: Options) -> Connection:
    keywords = dict(options)
    connection = _timed(keywords.pop("connection_class"))(**keywords)
    # The names under which redis-py sends CLIENT SETINFO, two round trips, in 8.x and in 5.x.
    connection.driver_info = connection.lib_name = connection.lib_version = None
    return cast("Connection", connection)


@functools.cache
def _timed(kind: Any) -> Any:
    """Return a subclass of a redis-py connection class that speaks through a `TimedSocket`."""

    def _connect(self: Any) -> TimedSocket:
        timed = self.timed = TimedSocket(kind._connect(self), self.until)
        return timed

    return type(f"Timed{kind.__name__}", (kind,), {"_connect": _connect})
