"""Looks into a Redis server through redis-py's plain client, one connection of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, cast
from urllib.parse import quote, urlencode

from upshot.url import Url
from upshot_conformance.harness import NotApplicableError, UnavailableError
from upshot_conformance.harnesses.private import PrivateHarness, PrivateService

__all__ = ["RedisHarness", "open_member", "renaming"]

_PAGE: Final = 1000
_OWN_NAME: Final = "upshot-conformance-harness"
_SENTINEL: Final = "sentinel-"  # how the connections of a sentinel to others are called
_LINKS: Final = frozenset("SM")  # flags of connections to replicas and from masters


class RedisHarness(PrivateHarness):
    """A server object is a key; a subscription is a pub/sub channel that somebody listens to.

    Attributes:
        servers: redis-py's client on each server that holds keys. `Any`: its hints mix blocking
            and asyncio answers.
    """

    scheme: ClassVar[str] = "redis"
    default_port: ClassVar[int] = 6379

    @classmethod
    def make_service(cls) -> PrivateService:
        """Return a private Redis without persistence, which asks for a password."""
        from upshot_conformance.servers import RedisServer, new_password  # only who starts one

        return RedisServer(password=new_password())

    def connect(self) -> None:
        self.servers: list[Any] = self._open_all()

    def addresses(self) -> Sequence[tuple[str, int]]:
        if self.url.scheme.endswith("+unix"):
            raise NotApplicableError("clients reach the service by a socket file, not by TCP")
        return super().addresses()

    def raw_objects(self, namespace: str) -> set[str]:
        return {name for name, _ in self._found(namespace)}

    def purge(self, namespace: str) -> None:
        for name, server in list(self._found(namespace)):
            server.unlink(_key(name))

    def server_version(self) -> str:
        return f"Redis {self.servers[0].info('server')['redis_version']}"

    def read_raw(self, name: str) -> bytes:
        # DUMP shows any type of key; the last ten bytes are its version and checksum.
        return cast("bytes | None", self._holder(name).dump(_key(name))) or b""

    def ttl(self, name: str) -> float | None:
        milliseconds = cast("int", self._holder(name).pttl(_key(name)))
        return milliseconds / 1000 if milliseconds >= 0 else None

    def subscriptions(self, namespace: str) -> set[str]:
        listed = (self._channels(server) for server in self.servers)
        return {name for channels in listed for name in map(_name, channels) if namespace in name}

    def connections(self) -> int:
        return sum(_connections(server) for server in self._all_servers())

    def close(self) -> None:
        for server in self._all_servers():
            server.close()

    def _open_all(self) -> list[Any]:
        """Open a client on each server that holds keys."""
        scheme = self.url.scheme.replace("valkey", "redis", 1)
        plain = {"rediss": "rediss", "redis+unix": "unix"}.get(scheme, "redis")
        return [_open(self.url.driver_url(plain))]

    def _all_servers(self) -> Sequence[Any]:
        """Return a client on each server that the backend may have connections to."""
        return self.servers

    def _channels(self, server: Any) -> Sequence[bytes]:
        return cast("list[bytes]", server.pubsub_channels())

    def _holder(self, name: str) -> Any:
        """Return the server that holds a key, or would."""
        return self.servers[0]

    def _found(self, namespace: str) -> Iterator[tuple[str, Any]]:
        """Yield each key that mentions `namespace`, with the server that has it."""
        for server in self.servers:
            for key in cast("Iterator[bytes]", server.scan_iter(count=_PAGE)):
                if namespace in _name(key):
                    yield _name(key), server


def renaming(
    url: Url, proxies: Mapping[tuple[str, int], tuple[str, int]]
) -> Callable[[bytes], bytes]:
    """Return what puts proxies in place of servers where an answer says where to go.

    Such an answer has host and port as two items of an array, or as the last word of a line.

    Raises:
        UnavailableError: nobody but the client can read the answers.
    """
    if url.scheme.startswith(("rediss", "valkeys")):
        raise UnavailableError("servers name each other to their clients, and TLS hides where")
    forms = (b"$%d\r\n%b\r\n:%d\r\n", b"$%d\r\n%b\r\n$%d\r\n%d\r\n", b" %b:%d\r\n")
    words: dict[bytes, bytes] = {}
    for old, new in proxies.items():
        for form in forms:
            words[_said(form, *old)] = _said(form, *new)
    pattern = re.compile(b"|".join(map(re.escape, words)))
    return lambda piece: pattern.sub(lambda found: words[found[0]], piece)


def _said(form: bytes, host: str, port: int) -> bytes:
    """Write an address as a server says it, in one of the forms of `renaming`."""
    name = host.encode()
    values = {2: (name, port), 3: (len(name), name, port)}
    return form % values.get(form.count(b"%"), (len(name), name, len(str(port)), port))


def open_member(
    url: Url, host: str, port: int, *, database: str = "0", password: str | None = None
) -> Any:
    """Open redis-py's client on one of the servers of a URL, with the URL's parameters.

    Args:
        url: gives user, password and parameters.
        host, port: which server.
        database: its number; "" where there are none.
        password: another one than the URL's; None for that.
    """
    scheme = "rediss" if url.scheme.startswith(("rediss", "valkeys")) else "redis"
    user = quote(url.username or "", safe="") if password is None else ""
    secret = quote((url.password or "") if password is None else password, safe="")
    login = f"{user}:{secret}@" if user or secret else ""
    query = urlencode([(name, value) for name, value in url.query if name != "master_name"])
    return _open(f"{scheme}://{login}{host}:{port}/{database}?{query}")


def _open(text: str) -> Any:
    import redis  # here, so that a missing driver is reported by the backend, once

    open_url = cast("Any", redis.Redis).from_url
    return open_url(text, client_name=_OWN_NAME, single_connection_client=True, socket_timeout=10)


def _connections(server: Any) -> int:
    """Count a server's clients: not this harness, not other servers, not sentinels."""
    clients = cast("list[dict[str, str]]", server.client_list())
    return sum(
        client["name"] != _OWN_NAME
        and not client["name"].startswith(_SENTINEL)
        and not _LINKS.intersection(client["flags"])
        for client in clients
    )


def _name(key: bytes) -> str:
    return key.decode(errors="surrogateescape")


def _key(name: str) -> bytes:
    return name.encode(errors="surrogateescape")
