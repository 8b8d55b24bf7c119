"""Looks into a Redis server through redis-py's plain client, one connection of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, ClassVar, Final, Protocol, cast
from urllib.parse import quote, urlencode

from upshot.url import Url
from upshot_conformance.harness import CannotStartError, Harness

__all__ = ["RedisHarness", "open_member", "started"]

_PAGE: Final = 1000
_OWN_NAME: Final = "upshot-conformance-harness"
_SENTINEL: Final = "sentinel-"  # how the connections of a sentinel to others are called
_LINKS: Final = frozenset("SM")  # flags of connections to replicas and from masters


class RedisHarness(Harness):
    """A server object is a key; a subscription is a pub/sub channel that somebody listens to.

    Attributes:
        servers: redis-py's client on each server that holds keys. `Any`: its hints mix blocking
            and asyncio answers.
    """

    scheme: ClassVar[str] = "redis"

    def __init__(self, url: Url) -> None:
        super().__init__(url)
        self.servers: list[Any] = self._open_all()

    @classmethod
    @contextlib.contextmanager
    def start(cls) -> Generator[str]:
        """Start a private Redis without persistence."""
        from upshot_conformance.servers import RedisServer  # only for who starts one

        with started(RedisServer) as url:
            yield url

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


class _Startable(Protocol):
    """A private server, or an ensemble of them."""

    @property
    def url(self) -> str: ...

    def start(self) -> None: ...
    def stop(self) -> None: ...


@contextlib.contextmanager
def started(make: Callable[[], _Startable]) -> Generator[str]:
    """Run a private service; the context's value is its URL.

    Raises:
        CannotStartError: it cannot be started.
    """
    from upshot_conformance.servers import ServerError  # only for who starts one

    server = make()
    try:
        server.start()
    except ServerError as exc:
        raise CannotStartError(str(exc)) from exc
    try:
        yield server.url
    finally:
        server.stop()


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
