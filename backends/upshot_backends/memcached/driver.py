"""Where upshot meets pymemcache: its connections, made from a URL, kept to a deadline, its errors.

pymemcache's clients give each `recv` the whole timeout again and wait for one answer before they
send the next command; its `HashClient` answers for a dead server with misses, or asks another one.
So only its *connections* and its errors are used; commands are written and read in `wire`.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final, get_type_hints
from urllib.parse import unquote

from pymemcache.client.base import Client  # type: ignore[import-untyped]  # hints, but no py.typed
from pymemcache.exceptions import (  # type: ignore[import-untyped]  # as above
    MemcacheClientError,
    MemcacheError,
    MemcacheServerError,
    MemcacheUnexpectedCloseError,
    MemcacheUnknownError,
)

from upshot import clock
from upshot.errors import UrlError
from upshot.retrying import DriverErrors
from upshot.typed_text import describe_type, parse_text
from upshot.url import Url

__all__ = [
    "DRIVER_ERRORS",
    "Address",
    "MemcacheClientError",
    "MemcacheError",
    "MemcacheServerError",
    "MemcacheUnexpectedCloseError",
    "MemcacheUnknownError",
    "Options",
    "TimedSocket",
    "addresses",
    "connect",
    "read_options",
]

Address = tuple[str, int] | str
"""Host and port, or the path of a Unix socket."""

_PORT: Final = 11211  # memcached's own default
_GREETING: Final = 2**16  # bytes that the answer to the first command may have: far too many

_RECEIVE: Final = socket.socket.recv
_SEND: Final = socket.socket.send

DRIVER_ERRORS: Final = DriverErrors(
    transient=(OSError, MemcacheServerError),  # a connection that closed unexpectedly is one
    permanent=(MemcacheError,),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The parameters of pymemcache that a URL may have.

    Attributes:
        connect_timeout: seconds that opening a connection may take; None for all that the call
            may take, which is the upper limit in any case.
        timeout: seconds that one call may take on one server; likewise.
        max_pool_size: connections to each server; a call that needs one more waits for its turn.
    """

    connect_timeout: float | None = None
    timeout: float | None = None
    max_pool_size: int = 16

    def __post_init__(self) -> None:
        """Refuse what would let no call through."""
        for name in ("connect_timeout", "timeout", "max_pool_size"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise ValueError(f"{name} must be more than 0, not {value!r}")


class TimedSocket(socket.socket):
    """A socket whose every operation ends at one moment, `until`, on the monotonic clock.

    It never blocks by itself. The kernel's own timeouts would begin anew with each signal that the
    thread gets, and one that comes often outlast them.
    `interrupt` ends what another thread does with it.

    Attributes:
        until: set before each use.
        left_to_read: how many bytes may still be received; None for any number.
    """

    until = 0.0
    left_to_read: int | None = None

    def connect(self, address: Any, /) -> None:
        super().settimeout(self._left())
        super().connect(address)
        super().settimeout(0.0)
        self._readable, self._writable = select.poll(), select.poll()
        self._readable.register(self, select.POLLIN)
        self._writable.register(self, select.POLLOUT)

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        while True:
            self._wait(self._readable)
            try:
                data = _RECEIVE(self, size, flags)
            except BlockingIOError:
                continue  # the kernel may wake a process for nothing
            if self.left_to_read is not None:
                self.left_to_read -= len(data)
                if self.left_to_read < 0:
                    raise MemcacheUnknownError("not an answer of memcached: it does not end")
            return data

    def sendall(self, data: Any, flags: int = 0, /) -> None:
        rest = data
        while True:
            try:
                sent = _SEND(self, rest, flags)
            except BlockingIOError:
                sent = 0
            if sent == len(rest):
                return
            rest = memoryview(rest)[sent:]
            self._wait(self._writable)

    def settimeout(self, value: float | None, /) -> None:
        """Do nothing: pymemcache would set its own idea of a timeout. `until` decides."""

    def interrupt(self) -> None:
        """End the running operation, and every later one, with an error."""
        self.until = 0.0
        try:
            self.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it is not connected yet, or no longer

    def _wait(self, poll: select.poll) -> None:
        if not poll.poll(self._left() * 1000):
            raise TimeoutError("timed out")

    def _left(self) -> float:
        left = self.until - clock.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return left


def addresses(url: Url) -> list[Address]:
    """Return where the servers of a URL are.

    Raises:
        UrlError: it has a user, a password, or a path where none can be, or names a server twice.
    """
    if url.username is not None or url.password is not None:
        raise UrlError(
            f"{url}: memcached's text protocol has no users and passwords; leave them out"
        )
    if "://" in url.driver_url().partition("://")[2].partition("?")[0]:
        raise UrlError(f"{url}: write several servers as {url.scheme}://host1,host2")
    path = url.path.removesuffix("/")
    if not url.hosts:
        return [unquote(path)] if path else [("localhost", _PORT)]
    if path:
        raise UrlError(f"{url}: memcached has no databases, so the URL has no path")
    found = [(host.lower(), port or _PORT) for host, port in url.hosts]
    if len(set(found)) < len(found):
        raise UrlError(f"{url}: a server is named twice")
    return list[Address](found)


def read_options(url: Url) -> Options:
    """Return the parameters of a URL.

    Raises:
        UrlError: one is not known, or its value is not possible.
    """
    kinds = get_type_hints(Options)
    values: dict[str, Any] = {}
    for name, text in url.query:
        if name not in kinds:
            known = ", ".join(kinds)
            raise UrlError(f"{url}: memcached URLs have no parameter {name!r}; they have {known}")
        try:
            values[name] = parse_text(text, kinds[name])
        except ValueError:
            raise UrlError(f"{url}: {name} must be {describe_type(kinds[name])}") from None
    try:
        return Options(**values)
    except ValueError as exc:
        raise UrlError(f"{url}: {exc}") from exc


def connect(address: Address, until: float, watch: Callable[[TimedSocket], object]) -> TimedSocket:
    """Open a connection by `until`, on the monotonic clock, and see that memcached answers.

    `watch` is called with every socket before it is used, so that another thread can interrupt it.

    A host name is resolved here and its addresses are tried in turn, each for its share of the
    time: pymemcache tries only the first, which for `localhost` is often one where nobody listens.

    Raises:
        OSError: nobody listens, or does not answer in time.
        MemcacheError: somebody else answers, or memcached demands a password.
    """
    targets = _resolved(address)
    failure: Exception = OSError("the host has no address")
    for position, target in enumerate(targets):
        now = clock.monotonic()
        share = now + (until - now) / (len(targets) - position)
        try:
            return _open(target, share, watch)
        except (OSError, MemcacheError) as exc:
            failure = exc
    raise failure


def _resolved(address: Address) -> list[Address]:
    if isinstance(address, str):
        return [address]
    found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
    return list(dict.fromkeys((str(each[4][0]), int(each[4][1])) for each in found))


def _open(target: Address, until: float, watch: Callable[[TimedSocket], object]) -> TimedSocket:
    opened: list[TimedSocket] = []

    def make(family: int, kind: int, protocol: int = 0) -> TimedSocket:
        made = TimedSocket(family, kind, protocol)
        made.until, made.left_to_read = until, _GREETING
        opened.append(made)
        watch(made)
        return made

    module = ModuleType("socket")
    vars(module).update(vars(socket), socket=make)
    client: Any = Client(target, no_delay=True, default_noreply=False, socket_module=module)
    try:
        client.version()
    except BaseException:  # pymemcache leaves it open after some of them
        client.close()
        raise
    opened[-1].left_to_read = None
    return opened[-1]
