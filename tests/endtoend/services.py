"""Every service, once: what the tests of this folder run over.

A new service is one line in `SERVICES`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Protocol, Self

import pytest

from upshot import registry
from upshot.url import Url
from upshot_conformance.harness import HARNESSES, Harness
from upshot_conformance.servers import (
    MariaDBServer,
    MemcachedServer,
    MongoDBServer,
    PostgreSQLServer,
    RabbitMQServer,
    RedisClusterServer,
    RedisSentinelServer,
    RedisServer,
)


class PrivateServer(Protocol):
    """One server, or several that are one service."""

    @property
    def url(self) -> str: ...

    def kill(self) -> None: ...
    def restart(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *exc_info: object) -> None: ...


@dataclass(frozen=True)
class Service:
    """One kind of service that keeps or carries results.

    Attributes:
        name: what its harness is called: `pytest conformance --backend=NAME`.
        fixture: the session's server, which no test stops; "" if there is no server at all.
        server: makes another one, for a test to kill; None if there is no server at all.
        broker: what it is called as a broker that is combined with every backend; "" for none.
    """

    name: str
    fixture: str = ""
    server: Callable[[], PrivateServer] | None = None
    broker: str = ""

    def find(self, request: pytest.FixtureRequest, folder: Path) -> str:
        """Return the URL of a running service; of a file in `folder`, if that is what it is."""
        if self.fixture:
            server: PrivateServer = request.getfixturevalue(self.fixture)
            return server.url
        return f"memory://{uuid.uuid4().hex}" if self.name == "memory" else f"sqlite:///{folder}/db"

    def harness(self, url: str) -> Harness:
        """Return what looks into the service behind upshot's back; to be closed."""
        return _harness_class(self.name)(Url.parse(url))


def _harness_class(name: str) -> type[Harness]:
    offer = next(offer for offer in registry.offers(HARNESSES) if offer.name == name)
    return registry.load(offer, Harness)  # type: ignore[type-abstract]  # a base to check against


SERVICES: Final = (
    Service("memory"),
    Service("sqlite", broker="sqlite"),
    Service("postgresql", "postgresql_server", PostgreSQLServer, broker="postgresql"),
    Service("mariadb", "mariadb_server", MariaDBServer),
    Service("redis", "redis_server", RedisServer, broker="redis"),
    Service("redis-cluster", "redis_cluster_server", RedisClusterServer),
    Service("redis-sentinel", "redis_sentinel_server", RedisSentinelServer),
    Service("mongo", "mongodb_server", partial(MongoDBServer, replica_set=True)),
    Service("mongo-standalone", "mongodb_standalone_server", MongoDBServer),
    Service("memcached", "memcached_server", MemcachedServer),
    Service("rpc", "rabbitmq_server", RabbitMQServer, broker="amqp"),
)
