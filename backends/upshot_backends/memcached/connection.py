"""The memcached servers of one URL: which one has a key, and the connections to each."""

from __future__ import annotations

import hashlib
import re
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final, final

from upshot import clock
from upshot.url import Url
from upshot_backends.memcached.driver import (
    Address,
    MemcacheClientError,
    MemcacheError,
    MemcacheUnexpectedCloseError,
    Options,
    TimedSocket,
    addresses,
    connect,
    read_options,
)
from upshot_backends.memcached.wire import Wire

__all__ = ["Server", "Servers", "Talk"]

Talk = Callable[[Wire, list[bytes]], None]
"""What is said to one server about its share of the keys."""

_KEY: Final = re.compile(rb"[!-~]{1,250}")  # memcached's own limit; a space would end the key
_KEYS: Final = re.compile(rb"[!-~]{1,250}(?: [!-~]{1,250})*")
_PRIME: Final = 2**61 - 1


@final
class Server:
    """One memcached server as one process uses it; safe to use from any thread.

    Args:
        address: where it is.
        options: timeouts, and how many connections it may have.
    """

    def __init__(self, address: Address, options: Options) -> None:
        self.name = address if isinstance(address, str) else f"{address[0]}:{address[1]}"
        digest = hashlib.blake2b(self.name.encode(), digest_size=16).digest()
        self._factor = int.from_bytes(digest[:8]) % _PRIME
        self._summand = int.from_bytes(digest[8:]) % _PRIME
        self._address = address
        self._options = options
        self._changed = threading.Condition()
        self._open = 0
        self._waiting = 0
        self._idle: deque[Wire] = deque()
        self._busy: set[Wire] = set()
        self._opening: set[TimedSocket] = set()
        self._closed = False
        self.failed = False
        """Whether the last call failed for lack of an answer."""

    def score(self, number: int) -> int:
        """Return how much this server wants the key with that checksum; see `Servers`."""
        return (number * self._factor + self._summand) % _PRIME

    def run(self, talk: Talk, keys: list[bytes], until: float) -> None:
        """Call `talk` with a connection and `keys`, to end by `until` on the monotonic clock.

        Raises:
            OSError, MemcacheError: whatever kept it from an answer; the message names the server.
        """
        if self._options.timeout is not None:
            until = min(until, clock.monotonic() + self._options.timeout)
        try:
            wire = self._take(until)
            try:
                talk(wire, keys)
            except BaseException as exc:  # an answer left unread would be taken for the next one's
                self._discard(wire)
                if isinstance(exc, (ConnectionError, MemcacheUnexpectedCloseError)):
                    self._drop_idle()  # what closed this one has closed the others: a restart
                raise
            self._give_back(wire)
        except (OSError, MemcacheUnexpectedCloseError) as exc:
            self.failed = True
            if isinstance(exc, TimeoutError) and not self._closed:
                raise TimeoutError(f"{self.name}: {exc}") from exc
            raise ConnectionError(f"{self.name}: {exc}") from exc
        except MemcacheError as exc:
            raise type(exc)(f"{self.name}: {exc}") from exc
        self.failed = False

    def close(self) -> None:
        """Close every connection. Whoever waits for an answer gets a connection error."""
        self._closed = True
        self._drop_idle()
        for each in [*list(self._opening), *(wire.socket for wire in list(self._busy))]:
            each.interrupt()  # not `close`: a thread is reading from it
        with self._changed:
            self._changed.notify_all()

    def _take(self, until: float) -> Wire:
        try:
            wire = self._idle.pop()
        except IndexError:
            wire = self._wait_or_open(until)
        wire.socket.until = until
        self._busy.add(wire)
        if self._closed:
            self._discard(wire)
            raise ConnectionError("this client is closed")
        return wire

    def _give_back(self, wire: Wire) -> None:
        if wire.has_more:
            self._discard(wire)
            return
        self._busy.discard(wire)
        self._idle.append(wire)
        if self._waiting:  # checked after the connection is there, as waiting is set before looking
            with self._changed:
                self._changed.notify()
        if self._closed:
            self._drop_idle()

    def _discard(self, wire: Wire) -> None:
        """Close a connection, whatever state it is in."""
        self._busy.discard(wire)
        wire.socket.close()
        self._count(-1)

    def _drop_idle(self) -> None:
        while True:
            try:
                self._discard(self._idle.pop())
            except IndexError:
                return

    def _wait_or_open(self, until: float) -> Wire:
        """Return a connection that another call gives back, or a new one if there may be one more.

        Raises:
            TimeoutError: neither by `until`.
        """
        with self._changed:
            self._waiting += 1
            try:
                while self._open >= self._options.max_pool_size:
                    try:
                        return self._idle.pop()
                    except IndexError:
                        if self._closed:
                            raise ConnectionError("this client is closed") from None
                    if not self._changed.wait(until - clock.monotonic()):
                        raise TimeoutError(f"all {self._open} connections are in use")
                self._open += 1
            finally:
                self._waiting -= 1
        try:
            return self._connect(until)
        except BaseException:
            self._count(-1)
            raise

    def _connect(self, until: float) -> Wire:
        limit = self._options.connect_timeout
        if limit is not None:
            until = min(until, clock.monotonic() + limit)
        mine: set[TimedSocket] = set()

        def watch(opening: TimedSocket) -> None:
            mine.add(opening)
            self._opening.add(opening)
            if self._closed:
                opening.interrupt()

        try:
            return Wire(connect(self._address, until, watch))
        finally:
            self._opening.difference_update(mine)

    def _count(self, more: int) -> None:
        with self._changed:
            self._open += more
            self._changed.notify()


@final
class Servers:
    """All servers of a URL. Each key belongs to one of them, for good.

    Rendezvous hashing: every server scores every key, and the highest score has it. So the order
    of servers in the URL does not matter, and one that is added or removed moves only its own
    share of the keys. A server that is down keeps its keys: they cannot be read until it is back,
    and are never looked for, or stored, elsewhere.

    The score is (checksum of the key * a + b) modulo a prime, where a and b come from the server's
    name as the URL has it; all processes must call a server by one name.

    Args:
        url: `memcached://`, with its parameters.

    Raises:
        UrlError: it has what memcached has not, see `driver`.
    """

    def __init__(self, url: Url) -> None:
        options = read_options(url)
        self._servers = [Server(address, options) for address in addresses(url)]

    @property
    def all(self) -> Sequence[Server]:
        """Every server, in the order of the URL."""
        return self._servers

    def shares(self, keys: Iterable[bytes]) -> list[tuple[Server, list[bytes]]]:
        """Return each server that has any of `keys`, with those; last those that failed last time.

        Raises:
            MemcacheClientError: a key is too long or has a character that no key may have.
        """
        wanted = list(keys)
        _check(wanted)
        if len(self._servers) == 1:
            return [(self._servers[0], wanted)] if wanted else []
        shares: dict[Server, list[bytes]] = {}
        for key in wanted:
            shares.setdefault(self.server_of(key), []).append(key)
        # A frozen server takes all the time that there is: the others come first.
        return sorted(shares.items(), key=lambda share: share[0].failed)

    def server_of(self, key: bytes) -> Server:
        """Return the server that a key belongs to."""
        number = zlib.crc32(key)
        return max(self._servers, key=lambda server: server.score(number))

    def close(self) -> None:
        """Close every connection to every server."""
        for server in self._servers:
            server.close()


def _check(keys: list[bytes]) -> None:
    text = b" ".join(keys)
    if _KEYS.fullmatch(text) and text.count(b" ") == len(keys) - 1:
        return
    for key in keys:
        if not _KEY.fullmatch(key):
            raise MemcacheClientError(f"{key!r} is no key for memcached")
