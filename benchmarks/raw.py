"""What each service costs by itself, and what it says it was asked: nothing here uses upshot.

`FLOORS` and `READS` have one function for each kind of service, by the scheme of its URL. Those of
`FLOORS` open a connection of the usual driver and yield what makes one round trip on it: one
request and its answer or, where results travel as messages, one message to the server and back.
Those of `READS` yield what returns how many reads the server has counted so far.
"""

from __future__ import annotations

import contextlib
import importlib
import sqlite3
import uuid
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Final
from urllib.parse import unquote

from upshot.url import Url

__all__ = ["FLOORS", "READS", "ReadCount", "RoundTrip"]

RoundTrip = Callable[[], object]
"""Makes one round trip, and returns when the answer is there."""

ReadCount = Callable[[], int]
"""Returns how many reads the server has served so far."""

_PATIENCE: Final = 10  # seconds; a driver that waits longer is stuck


def _driver(name: str) -> Any:
    """Import a driver when its service is measured; `Any`, because half of them have no hints."""
    return importlib.import_module(name)


@contextlib.contextmanager
def _redis(url: Url) -> Generator[RoundTrip]:
    with contextlib.closing(_driver("redis").Redis.from_url(url.driver_url("redis"))) as client:
        yield from _redis_round_trip(client)


@contextlib.contextmanager
def _redis_cluster(url: Url) -> Generator[RoundTrip]:
    host, port = url.hosts[0]  # every node answers PING itself
    with contextlib.closing(_driver("redis").Redis(host=host, port=port or 6379)) as client:
        yield from _redis_round_trip(client)


@contextlib.contextmanager
def _redis_sentinel(url: Url) -> Generator[RoundTrip]:
    sentinels = [(host, port or 26379) for host, port in url.hosts]
    service = url.path.strip("/").partition("/")[0]
    finder = _driver("redis.sentinel").Sentinel(sentinels, socket_timeout=_PATIENCE)
    host, port = finder.discover_master(service)
    with contextlib.closing(_driver("redis").Redis(host=host, port=port)) as client:
        yield from _redis_round_trip(client)


def _redis_round_trip(client: Any) -> Generator[RoundTrip]:
    connection = client.connection_pool.get_connection()

    def round_trip() -> object:
        connection.send_command("PING")
        return connection.read_response()

    yield round_trip
    connection.disconnect()


@contextlib.contextmanager
def _redis_reads(url: Url) -> Generator[ReadCount]:
    with contextlib.closing(_driver("redis").Redis.from_url(url.driver_url("redis"))) as client:
        yield lambda: int(client.info("commandstats").get("cmdstat_mget", {"calls": 0})["calls"])


@contextlib.contextmanager
def _postgresql(url: Url) -> Generator[RoundTrip]:
    connect = _driver("psycopg").connect
    with connect(url.driver_url("postgresql"), autocommit=True) as connection:
        yield lambda: connection.execute("SELECT 1", prepare=True).fetchone()


@contextlib.contextmanager
def _mariadb_cursor(url: Url) -> Generator[Any]:
    host, port = url.hosts[0]
    connection = _driver("pymysql").connect(
        host=host,
        port=port or 3306,
        user=url.username or "",
        password=url.password or "",
        autocommit=True,
        read_timeout=_PATIENCE,
    )
    with connection, connection.cursor() as cursor:
        yield cursor


@contextlib.contextmanager
def _mariadb(url: Url) -> Generator[RoundTrip]:
    with _mariadb_cursor(url) as cursor:
        yield lambda: cursor.execute("SELECT 1")


@contextlib.contextmanager
def _mariadb_reads(url: Url) -> Generator[ReadCount]:
    with _mariadb_cursor(url) as cursor:

        def count() -> int:
            cursor.execute("SHOW GLOBAL STATUS LIKE 'Com_select'")
            return int(cursor.fetchone()[1])

        yield count


@contextlib.contextmanager
def _mongodb(url: Url) -> Generator[RoundTrip]:
    with _driver("pymongo").MongoClient(url.driver_url("mongodb")) as client:
        yield lambda: client.admin.command("ping")


@contextlib.contextmanager
def _mongodb_reads(url: Url) -> Generator[ReadCount]:
    with _driver("pymongo").MongoClient(url.driver_url("mongodb")) as client:

        def count() -> int:
            counters = client.admin.command("serverStatus")["opcounters"]
            return int(counters["query"])

        yield count


@contextlib.contextmanager
def _memcached(url: Url) -> Generator[RoundTrip]:
    with contextlib.closing(_memcached_client(*url.hosts[0])) as client:
        yield lambda: client.get("nothing")


@contextlib.contextmanager
def _memcached_reads(url: Url) -> Generator[ReadCount]:
    """Count keys: a command that reads a thousand of them counts as a thousand here."""
    with contextlib.ExitStack() as stack:
        opened = (contextlib.closing(_memcached_client(*host)) for host in url.hosts)
        clients = [stack.enter_context(each) for each in opened]
        yield lambda: sum(int(client.stats()[b"cmd_get"]) for client in clients)


def _memcached_client(host: str, port: int | None) -> Any:
    return _driver("pymemcache").Client((host, port or 11211), timeout=_PATIENCE)


@contextlib.contextmanager
def _amqp(url: Url) -> Generator[RoundTrip]:
    pika = _driver("pika")
    host, port = url.hosts[0]
    parameters = pika.ConnectionParameters(
        host=host,
        port=port or 5672,
        virtual_host=unquote(url.path[1:]) or "/",
        credentials=pika.PlainCredentials(url.username or "guest", url.password or "guest"),
    )
    with contextlib.closing(pika.BlockingConnection(parameters)) as connection:
        channel = connection.channel()
        queue = f"bench-{uuid.uuid4().hex}"
        channel.queue_declare(queue, exclusive=True)
        received: list[bytes] = []

        def receive(channel: Any, method: Any, properties: Any, body: bytes) -> None:
            received.append(body)

        channel.basic_consume(queue, receive, auto_ack=True)

        def round_trip() -> object:
            channel.basic_publish("", queue, b"x")
            while not received:
                connection.process_data_events(time_limit=_PATIENCE)
            return received.pop()

        yield round_trip


@contextlib.contextmanager
def _sqlite(url: Url) -> Generator[RoundTrip]:
    path = unquote(url.driver_url().partition("://")[2].partition("?")[0]).removeprefix("/")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        yield lambda: connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()


FLOORS: Final[Mapping[str, Callable[[Url], AbstractContextManager[RoundTrip]]]] = {
    "redis": _redis,
    "redis+cluster": _redis_cluster,
    "redis+sentinel": _redis_sentinel,
    "postgresql": _postgresql,
    "mariadb": _mariadb,
    "mysql": _mariadb,
    "mongodb": _mongodb,
    "memcached": _memcached,
    "amqp": _amqp,
    "rpc": _amqp,
    "sqlite": _sqlite,
}

READS: Final[Mapping[str, Callable[[Url], AbstractContextManager[ReadCount]]]] = {
    "redis": _redis_reads,
    "mariadb": _mariadb_reads,
    "mysql": _mariadb_reads,
    "mongodb": _mongodb_reads,
    "memcached": _memcached_reads,
}
