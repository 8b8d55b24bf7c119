"""Looks into memcached servers through one plain socket to each, in memcached's text protocol."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Sequence
from typing import ClassVar, Final
from urllib.parse import unquote_to_bytes

from upshot import clock
from upshot.url import Url
from upshot_conformance.harness import NotApplicableError, UnavailableError
from upshot_conformance.harnesses.private import PrivateHarness, PrivateService

__all__ = ["MemcachedHarness"]

_PATIENCE: Final = 10.0  # seconds for one answer
_PAUSE: Final = 0.01  # seconds until a busy crawler is asked again
_BEHIND: Final = 2  # seconds by which memcached's clock, which ticks once in one, may be behind
_DUMPED: Final = re.compile(rb"key=(\S+) exp=(-?\d+) ")

_REFUSED: Final = re.compile(rb"(?:ERROR|CLIENT_ERROR|SERVER_ERROR|BUSY|BADCLASS)[^\r]*\r\n")


class MemcachedHarness(PrivateHarness):
    """A server object is an item, named `host:port/key`; it belongs to the namespaces that its key
    mentions. memcached has no subscriptions. It counts whole seconds, so `ttl` is what an item has
    left at least.

    Items are listed by `lru_crawler metadump`, so the server may not be started with
    `-o no_lru_crawler` or `-X`.
    """

    scheme: ClassVar[str] = "memcached"
    default_port: ClassVar[int] = 11211

    def __init__(self, url: Url) -> None:
        hosts = [(host, port or self.default_port) for host, port in url.hosts]
        if not hosts:
            hosts = [(url.path, 0)] if url.path else [("localhost", self.default_port)]
        self._servers = [_Server(host, port) for host, port in hosts]
        super().__init__(url)

    @classmethod
    def make_service(cls) -> PrivateService:
        """Return two private servers, which share the keys."""
        from upshot_conformance.servers import MemcachedServers  # only who starts them

        return MemcachedServers()

    def addresses(self) -> Sequence[tuple[str, int]]:
        """Return one: clients tell by the names of servers which of them has a key."""
        if self.url.path and not self.url.hosts:
            raise NotApplicableError("clients reach the service by a socket file, not by TCP")
        return [self._servers[0].address]

    def raw_objects(self, namespace: str) -> set[str]:
        return {
            f"{server.name}/{_name(key)}"
            for server in self._servers
            for key, _ in server.items()
            if namespace in _name(key)
        }

    def purge(self, namespace: str) -> None:
        for name in self.raw_objects(namespace):
            server, key = self._find(name)
            server.ask(b"delete " + key, end=b"\r\n")

    def server_version(self) -> str:
        versions = {
            server.ask(b"version", end=b"\r\n").decode().removeprefix("VERSION ").strip()
            for server in self._servers
        }
        return f"memcached {', '.join(sorted(versions))}"

    def read_raw(self, name: str) -> bytes:
        server, key = self._find(name)
        return server.value(key)

    def ttl(self, name: str) -> float | None:
        server, key = self._find(name)
        date = dict(server.items()).get(key)
        return None if date is None else date - server.now() - _BEHIND

    def subscriptions(self, namespace: str) -> set[str]:
        return set()

    def connections(self) -> int:
        return sum(server.connections() - 1 for server in self._servers)

    def close(self) -> None:
        for server in self._servers:
            server.close()

    def _find(self, name: str) -> tuple[_Server, bytes]:
        """Return the server and the key of an object."""
        server = next(each for each in self._servers if name.startswith(f"{each.name}/"))
        return server, name.removeprefix(f"{server.name}/").encode(errors="surrogateescape")


class _Server:
    """One server, through one connection that stays open, so that it can be told from others."""

    def __init__(self, host: str, port: int) -> None:
        self.name = f"{host}:{port}" if port else host
        self.address = (host, port)
        self._socket: socket.socket | None = None

    def ask(self, command: bytes, *, end: bytes = b"END\r\n") -> bytes:
        """Send a command and return its answer, which ends with `end` or is one line of refusal."""
        opened = self._socket = self._socket or self._connect()
        opened.sendall(command + b"\r\n")
        answer = b""
        while not (answer.endswith(end) or _REFUSED.fullmatch(answer)):
            answer += self._received(opened)
        return answer

    def value(self, key: bytes) -> bytes:
        """Return what is stored under a key, and its flags; b"" if nothing is."""
        answer = self.ask(b"get " + key, end=b"\r\n")
        if answer == b"END\r\n":
            return b""
        line, _, data = answer.partition(b"\r\n")
        _, _, flags, size = line.split()
        assert self._socket is not None, "`ask` has opened it"
        while len(data) < int(size) + len(b"\r\nEND\r\n"):
            data += self._received(self._socket)
        return flags + b" " + data[: int(size)]

    def items(self) -> Iterator[tuple[bytes, int | None]]:
        """Yield every key with the date, on the server's clock, when it expires; None for never.

        By the hash table, which misses nothing; servers before 1.6 know only the LRU lists, where
        an item that moves meanwhile is missed.
        """
        deadline = clock.Deadline(_PATIENCE)
        command = b"lru_crawler metadump hash"
        while _REFUSED.fullmatch(answer := self.ask(command)):
            if answer.startswith(b"BADCLASS") and command.endswith(b"hash"):
                command = b"lru_crawler metadump all"
            elif not answer.startswith(b"BUSY") or deadline.expired:
                raise UnavailableError(f"{self.name} does not list its items: {answer.decode()}")
            else:
                clock.sleep(_PAUSE)
        for key, date in _DUMPED.findall(answer):
            yield unquote_to_bytes(key), None if date == b"-1" else int(date)

    def now(self) -> int:
        """Return the server's clock, in seconds since the epoch."""
        found = re.search(rb"STAT time (\d+)", self.ask(b"stats"))
        assert found, "`stats` has always told the time"
        return int(found[1])

    def connections(self) -> int:
        """Return how many connections the server has, this one included."""
        states: list[bytes] = re.findall(rb":state (\w+)", self.ask(b"stats conns"))
        return sum(state not in (b"conn_listening", b"conn_closed") for state in states)

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _received(self, opened: socket.socket) -> bytes:
        received = opened.recv(2**16)
        if not received:
            raise ConnectionError(f"{self.name} closed the harness's connection")
        return received

    def _connect(self) -> socket.socket:
        host, port = self.address
        if port:
            return socket.create_connection(self.address, timeout=_PATIENCE)
        opened = socket.socket(socket.AF_UNIX)
        opened.settimeout(_PATIENCE)
        opened.connect(host)
        return opened


def _name(key: bytes) -> str:
    return key.decode(errors="surrogateescape")
