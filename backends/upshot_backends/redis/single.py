"""Where a key's server lives when there is one server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

import redis

from upshot.url import Url
from upshot_backends.redis.client import NoOptions, RedisClient
from upshot_backends.redis.driver import Argument, Reply, driver_options
from upshot_backends.redis.server import Server

__all__ = ["SingleClient"]


@final
class SingleClient(RedisClient):
    """One Redis server, the same for every key.

    A name or a balancer in front of several is fine: a server that refuses writes, or that closes
    a connection, loses all the others, and the next try connects anew.

    Args:
        url: `redis://`, `rediss://` or `redis+unix://`, with redis-py's own parameters; see
            `driver.driver_options`.

    Raises:
        UrlError: redis-py does not take a parameter, or the path is no database number.
    """

    keys_per_call: ClassVar[int] = 1000
    pubsub: ClassVar[str] = "pubsub"

    def __init__(self, url: Url) -> None:
        super().__init__()
        url.read_options(NoOptions)
        options = driver_options(url)
        self.database = int(options.get("db") or 0)
        self._server = Server(options)

    def server(self, key: str, timeout: float) -> Server:
        return self._server

    def servers(self, timeout: float) -> Sequence[Server]:
        return [self._server]

    def close(self) -> None:
        self.closed = True
        self._server.close()

    def _exchange(
        self, commands: Sequence[Sequence[Argument]], until: float
    ) -> list[Reply | redis.ResponseError]:
        return self._server.exchange(commands, until)
