"""Private servers for tests: real ones, on free loopback ports, gone when the tests are.

    with RedisServer() as server:
        backend = app_backend(server.url)

Each listens on 127.0.0.1 only, keeps its files in a temporary folder, and is ended by its
process id. `SERVERS` has all of them by the name of the service, in lower case.
"""

from __future__ import annotations

from .base import Server
from .installation import ServerError
from .mariadb import MariaDBServer
from .memcached import MemcachedServer
from .mongodb import MongoDBServer
from .pgbouncer import PgBouncerServer
from .postgresql import PostgreSQLServer
from .rabbitmq import RabbitMQServer
from .redis import RedisServer

__all__ = [
    "SERVERS",
    "MariaDBServer",
    "MemcachedServer",
    "MongoDBServer",
    "PgBouncerServer",
    "PostgreSQLServer",
    "RabbitMQServer",
    "RedisServer",
    "Server",
    "ServerError",
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
