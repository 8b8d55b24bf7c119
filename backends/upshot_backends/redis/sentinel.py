"""Where a key's server lives when sentinels choose the master."""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, cast, final
from urllib.parse import unquote

import redis
from redis.exceptions import NoPermissionError

from upshot import clock
from upshot.errors import UrlError
from upshot.url import Url
from upshot_backends.redis.client import RedisClient
from upshot_backends.redis.driver import (
    Argument,
    Connection,
    DemotedError,
    Options,
    Reply,
    read,
    server_options,
)
from upshot_backends.redis.server import Server

__all__ = ["Master", "SentinelClient", "SentinelOptions"]

_PORT: Final = 26379  # where sentinels listen unless told otherwise
_TRUST: Final = 1.0  # seconds for which a server that said it is master is believed
_SILENCE: Final = 1.0  # seconds after which the next sentinel is asked
_NAME: Final = "master_name"  # what kombu calls the service


@dataclass(frozen=True, slots=True, kw_only=True)
class SentinelOptions:
    """The `upshot_…` parameters of a sentinel URL.

    Attributes:
        sentinel_username: with which to log in at the sentinels; "" for none.
        sentinel_password: with which to log in at the sentinels; "" for none.
    """

    sentinel_username: str = ""
    sentinel_password: str = ""


class Master(Server):
    """A server that sentinels call master, as long as it says so too.

    It is asked for its ROLE on every new connection, and again with the first commands after a
    second. An error that may mean a fail-over retires it: the next try asks the sentinels.
    """

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._trusted_until = 0.0

    def exchange(
        self, commands: Sequence[Sequence[Argument]], until: float
    ) -> list[Reply | redis.ResponseError]:
        """Send commands and return their answers, errors among them.

        Raises:
            DemotedError: it is no master any more; what it answered is not to be relied on.
        """
        if clock.monotonic() < self._trusted_until:
            return super().exchange(commands, until)
        role, *answers = super().exchange([("ROLE",), *commands], until)
        self._check(role)
        return answers

    def open(self, until: float, *, protocol: int | None = None) -> Connection:
        """Open a connection that is the caller's own; see `Server.open`.

        Raises:
            DemotedError: it is no master.
        """
        connection = super().open(until, protocol=protocol)
        try:
            connection.send_packed_command(connection.pack_commands([("ROLE",)]))
            self._check(read(connection))
        except BaseException as exc:
            self._fail(connection, exc)
            raise
        return connection

    def _check(self, role: Reply | redis.ResponseError) -> None:
        # Whoever may not ask is told by the first write to a replica.
        if isinstance(role, NoPermissionError) or (isinstance(role, list) and role[0] == b"master"):
            self._trusted_until = clock.monotonic() + _TRUST
            return
        self.retire()
        raise DemotedError("the server that the sentinels call master says that it is none")

    def _doubt(self) -> None:
        self.retire()


@final
class SentinelClient(RedisClient):
    """The master of a service that sentinels watch.

        redis+sentinel://[[user]:password@]host[:26379][,host[:26379]…]/SERVICE[/DATABASE]

    The hosts are sentinels. User, password, database and redis-py's parameters are for the servers
    that they name. `upshot_sentinel_username` and `upshot_sentinel_password` are for the sentinels
    themselves, and so are redis-py's parameters. With `rediss+sentinel` all of them speak TLS. As
    kombu has it, `sentinel://host:26379/DATABASE?master_name=SERVICE;sentinel://host…` will do too.

    Args:
        url: as above.

    Raises:
        UrlError: the URL names no service, or has a parameter that is unknown or wrong.
    """

    keys_per_call: ClassVar[int] = 1000
    pubsub: ClassVar[str] = "pubsub"

    def __init__(self, url: Url) -> None:
        super().__init__()
        ours = url.read_options(SentinelOptions)
        self._service, database = _service_and_database(url)
        self._options = server_options(
            url, database, without=_NAME, username=url.username, password=url.password
        )
        self._sentinel_options = server_options(
            url,
            "0",
            without=_NAME,
            username=ours.sentinel_username,
            password=ours.sentinel_password,
        )
        self._sentinel_options.pop("db", None)  # sentinels have none
        self.database = int(self._options.get("db") or 0)
        hosts = url.hosts or (("localhost", None),)
        self._sentinels = [(host, port or _PORT) for host, port in hosts]
        self._lock = threading.Lock()
        self._master: Master | None = None

    def server(self, key: str, timeout: float) -> Server:
        return self._current(clock.monotonic() + timeout)

    def servers(self, timeout: float) -> Sequence[Server]:
        return [self._current(clock.monotonic() + timeout)]

    def close(self) -> None:
        self.closed = True
        if self._master is not None:
            self._master.close()

    def _exchange(
        self, commands: Sequence[Sequence[Argument]], until: float
    ) -> list[Reply | redis.ResponseError]:
        return self._current(until).exchange(commands, until)

    def _current(self, until: float) -> Master:
        """Return the master; asks for it, one thread at a time, where it is not known."""
        master = self._master
        if master is not None and not master.retired:
            return master
        if not self._lock.acquire(timeout=max(0.0, until - clock.monotonic())):
            raise redis.TimeoutError("the sentinels have not answered another thread in time")
        try:
            if self.closed:
                raise redis.ConnectionError("this client is closed")
            if self._master is None or self._master.retired:
                self._master = self._find(until)
                if self.closed:
                    self._master.close()
            return self._master
        finally:
            self._lock.release()

    def _find(self, until: float) -> Master:
        """Ask one sentinel after the other until one names a server that says it is master.

        None gets all the time that is left. Those that failed are asked last the next time.
        """
        failures: list[Exception] = []
        for left, address in zip(
            range(len(self._sentinels), 0, -1), list(self._sentinels), strict=True
        ):
            try:
                host, port = self._ask(*address, _share(until, 2 * left))
                master = Master({**self._options, "host": host, "port": port})
                master.warm_up(clock.monotonic() + _share(until, 2 * left - 1))
            except (redis.RedisError, ssl.SSLCertVerificationError) as exc:
                failures.append(exc)
                self._sentinels.remove(address)
                self._sentinels.append(address)
            else:
                return master
        raise failures[-1]

    def _ask(self, host: str, port: int, timeout: float) -> tuple[str, int]:
        """Return the address of the master as one sentinel knows it."""
        sentinel = Server({**self._sentinel_options, "host": host, "port": port})
        with contextlib.closing(sentinel):
            answer = sentinel.call(
                "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service, timeout=timeout
            )
        if not answer:
            raise redis.ResponseError(f"the sentinel {host}:{port} watches no {self._service!r}")
        name, number = cast("tuple[bytes, bytes]", answer)
        return name.decode(), int(number)


def _share(until: float, steps: int) -> float:
    """Return the seconds that one of the steps to be done by `until` may take."""
    return min(_SILENCE, max(0.0, until - clock.monotonic()) / steps)


def _service_and_database(url: Url) -> tuple[str, str]:
    """Return the service's name, and the database's number as text."""
    words = [unquote(word) for word in url.path.split("/") if word]
    words[:0] = [value for name, value in url.query if name == _NAME]
    if not 1 <= len(words) <= 2 or not all(word.isdecimal() for word in words[1:]):
        raise UrlError(
            f"{url}: after the hosts comes the name under which the sentinels know the service, "
            f"then, if need be, the database's number: {url.scheme}://host:26379/mymaster/0"
        )
    return words[0], words[1] if len(words) == 2 else "0"
