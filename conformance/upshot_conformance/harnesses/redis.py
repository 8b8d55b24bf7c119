"""Looks into a Redis server through redis-py's plain client, one connection of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from typing import Any, ClassVar, Final, cast

from upshot.url import Url
from upshot_conformance.harness import CannotStartError, Harness

__all__ = ["RedisHarness"]

_PAGE: Final = 1000
_URL_SCHEMES: Final = {"redis": "redis", "rediss": "rediss", "redis+unix": "unix"}
_OWN_NAME: Final = "upshot-conformance-harness"


class RedisHarness(Harness):
    """A server object is a key; a subscription is a pub/sub channel that somebody listens to."""

    scheme: ClassVar[str] = "redis"

    def __init__(self, url: Url) -> None:
        super().__init__(url)
        import redis  # here, so that a missing driver is reported by the backend, once

        # `Any`: redis-py's hints mix its blocking and its asyncio answers.
        open_url = cast("Any", redis.Redis).from_url
        self._server: Any = open_url(
            url.driver_url(_URL_SCHEMES[url.scheme]),
            client_name=_OWN_NAME,
            single_connection_client=True,
            socket_timeout=10,
        )

    @classmethod
    @contextlib.contextmanager
    def start(cls) -> Generator[str]:
        """Start a private Redis without persistence."""
        from upshot_conformance.servers import RedisServer, ServerError  # only who starts one

        server = RedisServer()
        try:
            server.start()
        except ServerError as exc:
            raise CannotStartError(str(exc)) from exc
        try:
            yield server.url
        finally:
            server.stop()

    def raw_objects(self, namespace: str) -> set[str]:
        keys = cast("Iterator[bytes]", self._server.scan_iter(count=_PAGE))
        return {name for name in map(_name, keys) if namespace in name}

    def purge(self, namespace: str) -> None:
        keys = [_key(name) for name in self.raw_objects(namespace)]
        for start in range(0, len(keys), _PAGE):
            self._server.unlink(*keys[start : start + _PAGE])

    def server_version(self) -> str:
        return f"Redis {self._server.info('server')['redis_version']}"

    def read_raw(self, name: str) -> bytes:
        # DUMP shows any type of key; the last ten bytes are its version and checksum.
        return cast("bytes | None", self._server.dump(_key(name))) or b""

    def ttl(self, name: str) -> float | None:
        milliseconds = cast("int", self._server.pttl(_key(name)))
        return milliseconds / 1000 if milliseconds >= 0 else None

    def subscriptions(self, namespace: str) -> set[str]:
        channels = cast("list[bytes]", self._server.pubsub_channels())
        return {name for name in map(_name, channels) if namespace in name}

    def connections(self) -> int:
        clients = cast("list[dict[str, str]]", self._server.client_list())
        return sum(client["name"] != _OWN_NAME for client in clients)

    def close(self) -> None:
        self._server.close()


def _name(key: bytes) -> str:
    return key.decode(errors="surrogateescape")


def _key(name: str) -> bytes:
    return name.encode(errors="surrogateescape")
