"""Private servers for tests: real ones, on free loopback ports, gone when the tests are.

    with RedisServer() as server:
        backend = app_backend(server.url)

Each listens on 127.0.0.1 only, keeps its files in a temporary folder, and is ended by its
process id. `SERVERS` has one of each service by its name in lower case. An `Ensemble` is several
servers that make one service.
"""

from __future__ import annotations

from .base import Server
from .ensemble import Ensemble
from .installation import ServerError
from .mariadb import MariaDBServer
from .memcached import MemcachedServer, MemcachedServers
from .mongodb import MongoDBServer
from .passwords import PASSWORD_MARK, new_password
from .pgbouncer import PgBouncerServer
from .postgresql import PostgreSQLServer
from .rabbitmq import RabbitMQServer
from .redis import RedisServer
from .redis_cluster import RedisClusterServer, RedisNode
from .redis_sentinel import RedisSentinelServer, Sentinel

__all__ = [
    "PASSWORD_MARK",
    "SERVERS",
    "Ensemble",
    "MariaDBServer",
    "MemcachedServer",
    "MemcachedServers",
    "MongoDBServer",
    "PgBouncerServer",
    "PostgreSQLServer",
    "RabbitMQServer",
    "RedisClusterServer",
    "RedisNode",
    "RedisSentinelServer",
    "RedisServer",
    "Sentinel",
    "Server",
    "ServerError",
    "new_password",
]

SERVERS: dict[str, type[Server]] = {
    "redis": RedisServer,
    "memcached": MemcachedServer,
    "postgresql": PostgreSQLServer,
    "pgbouncer": PgBouncerServer,
    "mariadb": MariaDBServer,
    "rabbitmq": RabbitMQServer,
    "mongodb": MongoDBServer,
}
