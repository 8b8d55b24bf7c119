"""A broker's queue, filled and emptied behind upshot's back."""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from typing import Any, Final, final

import pika  # type: ignore[import-untyped]
import psycopg
import redis

__all__ = ["AmqpLair", "Lair", "RedisLair", "SqlLair", "lair"]


class Lair(ABC):
    """The queue `default` of one namespace.

    Args:
        url: the service.
        namespace: as the app has it.
    """

    def __init__(self, url: str, namespace: str) -> None:
        self.url = url
        self.namespace = namespace

    @abstractmethod
    def put_oddities(self) -> int:
        """Put in what no upshot would, by the service's own means; return how many are to die."""

    @abstractmethod
    def reasons(self) -> list[str]:
        """Return why each dead letter is there."""


@final
class RedisLair(Lair):
    """Sorted sets and hashes, see `redis/scripts/queue.lua`."""

    def _client(self) -> Any:
        kind: Any = redis.Redis
        return kind.from_url(self.url)

    @property
    def _base(self) -> str:
        return f"{self.namespace}/default"

    def put_oddities(self) -> int:
        with self._client() as client:
            client.zadd(f"{self._base}/ready", {"no-body": 1})
            for name, meta in (("bad-meta", "x y z"), (b"\xff\xfe", "1 0 "), ("no-meta", None)):
                client.hset(f"{self._base}/messages", name, b"put here by hand")
                client.zadd(f"{self._base}/ready", {name: 2})
                if meta is not None:
                    client.hset(f"{self._base}/meta", name, meta)
        return 3

    def reasons(self) -> list[str]:
        with self._client() as client:
            dead = client.hkeys(f"{self._base}/dead")
            why = client.hgetall(f"{self._base}/reasons")
            return [why.get(each, b"").decode() for each in dead]


@final
class SqlLair(Lair):
    """Tables, see `sql/schema.py`."""

    def _run(self, statement: str, *values: Any) -> list[Any]:
        if self.url.startswith("sqlite"):
            with sqlite3.connect(self.url.removeprefix("sqlite:///"), timeout=30) as file:
                return file.execute(statement.replace("%s", "?"), values).fetchall()
        with psycopg.connect(self.url) as connection:
            cursor = connection.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def put_oddities(self) -> int:
        is_loose = self.url.startswith("sqlite")  # which keeps text where bytes should be
        bodies: list[Any] = ["text, not bytes", 7] if is_loose else [b"put here by hand", b"\0"]
        for number, body in enumerate(bodies):
            self._run(
                "INSERT INTO upshot_messages "
                "(namespace, queue, message_id, priority, due_at, deliveries, body) "
                "VALUES (%s, %s, %s, %s, %s, %s, %s)",
                *(self.namespace, "default", f"odd\n{number}", 9, 0.0, -5, body),
            )
        return len(bodies)

    def reasons(self) -> list[str]:
        statement = "SELECT reason FROM upshot_dead_letters WHERE namespace = %s"
        return [reason for (reason,) in self._run(statement, self.namespace)]


_HEADERS: Final[list[dict[str, Any] | None]] = [
    None,
    {},
    {"id": {"a": [1]}, "priority": "high", "counted": -(2**40), "eta": "nan"},
    {"id": 5, "priority": 2**40, "counted": 2**62, "eta": "later"},
    {"id": "a\nb", "x-death": "never", "eta": "1e999"},
]


@final
class AmqpLair(Lair):
    """Queues of the server, see `amqp/broker.py`."""

    @property
    def _server(self) -> pika.URLParameters:
        # A path of "/" is the virtual host of that name, which pika wants quoted.
        return pika.URLParameters(self.url.removesuffix("//") + "/%2F")

    def put_oddities(self) -> int:
        with pika.BlockingConnection(self._server) as connection:
            channel = connection.channel()
            for headers in _HEADERS:
                properties = pika.BasicProperties(
                    content_type="application/x-python-serialize",
                    content_encoding="gzip",
                    headers=headers,
                    reply_to="nowhere",
                    timestamp=0,
                )
                channel.basic_publish("", f"{self.namespace}/default", b"by hand", properties)
        return len(_HEADERS)

    def reasons(self) -> list[str]:
        found: list[str] = []
        with pika.BlockingConnection(self._server) as connection:
            channel = connection.channel()
            while True:
                method, properties, _ = channel.basic_get(f"{self.namespace}/default/dead")
                if method is None:  # what was got comes back when the connection is closed
                    return found
                headers: Any = properties
                mail: dict[str, Any] = headers.headers or {}
                found.append(str(mail.get("reason", "")))


def lair(url: str, namespace: str) -> Lair:
    """Return the queue of a service of any kind."""
    scheme = url.partition(":")[0]
    kinds: dict[str, type[Lair]] = {"redis": RedisLair, "amqp": AmqpLair}
    return kinds.get(scheme, SqlLair)(url, namespace)
