"""upshot's harnesses of the services, for URLs with `celery+` in front."""

from __future__ import annotations

import contextlib
import json
import urllib.request
from collections.abc import Generator
from typing import Any, ClassVar, Final
from urllib.parse import quote

from upshot.url import Url
from upshot_conformance.harness import UnavailableError
from upshot_conformance.harnesses import memcached, mongo, rabbitmq, redis, sqlite

__all__ = ["MemcachedHarness", "MongoHarness", "RedisHarness", "RpcHarness", "SqliteHarness"]

_OURS: Final = "celery+"
_MOST: Final = 10_000  # messages looked at in one queue
_PATIENCE: Final = 10.0  # seconds for one request


def _plain(url: Url, scheme: str) -> Url:
    return Url.parse(url.driver_url(scheme))


class RedisHarness(redis.RedisHarness):
    """A server object is a key; a subscription is a channel."""

    scheme: ClassVar[str] = "celery+redis"

    def __init__(self, url: Url) -> None:
        super().__init__(_plain(url, "redis"))

    @classmethod
    @contextlib.contextmanager
    def start(cls) -> Generator[str]:
        with super().start() as url:
            yield _OURS + url


class MongoHarness(mongo.MongoHarness):
    """A server object is a document. Celery's have no field that expires them."""

    scheme: ClassVar[str] = "celery+mongodb"

    def __init__(self, url: Url) -> None:
        super().__init__(_plain(url, "mongodb"))

    @classmethod
    @contextlib.contextmanager
    def start(cls) -> Generator[str]:
        with super().start() as url:
            yield _OURS + url


class MemcachedHarness(memcached.MemcachedHarness):
    """A server object is an item."""

    scheme: ClassVar[str] = "celery+cache+memcached"

    def __init__(self, url: Url) -> None:
        super().__init__(_plain(url, "memcached"))

    @classmethod
    @contextlib.contextmanager
    def start(cls) -> Generator[str]:
        with super().start() as url:
            yield f"{_OURS}cache+{url}"


class SqliteHarness(sqlite.SqliteHarness):
    """A server object is a row, but for those of SQLite's own tables, where it counts."""

    scheme: ClassVar[str] = "celery+db+sqlite"

    def __init__(self, url: Url) -> None:
        super().__init__(_plain(url, "sqlite"))

    @classmethod
    @contextlib.contextmanager
    def start(cls) -> Generator[str]:
        with super().start() as url:
            yield f"{_OURS}db+{url}"

    def raw_objects(self, namespace: str) -> set[str]:
        return {name for name in super().raw_objects(namespace) if not name.startswith("sqlite_")}


class RpcHarness(rabbitmq.RabbitMQHarness):
    """A server object is a queue, or a message that lies in one, named by its task's id.

    What a client has taken out of its queue is nowhere to be seen. Looking into a queue takes its
    messages out and puts them back where they were.
    """

    scheme: ClassVar[str] = "celery+rpc"

    def __init__(self, url: Url) -> None:
        super().__init__(_plain(url, "amqp"))

    @classmethod
    @contextlib.contextmanager
    def start(cls) -> Generator[str]:
        with super().start() as url:
            yield f"{_OURS}rpc://{url.partition('://')[2]}"

    def raw_objects(self, namespace: str) -> set[str]:
        names = {f"queue {queue}" for queue in self._names()} | set(self._messages())
        return {name for name in names if namespace in name}

    def purge(self, namespace: str) -> None:
        """Delete the queues in which there is something of a namespace: they are of a client."""
        for name, queue in self._messages().items():
            if namespace in name:
                with contextlib.suppress(UnavailableError):  # deleted for another message
                    self._ask(f"{self._queues}/{queue}", method="DELETE")

    def subscriptions(self, namespace: str) -> set[str]:
        raise UnavailableError("one queue brings all results of a client")

    def read_raw(self, name: str) -> bytes:
        raise UnavailableError("a message cannot be read without taking it out of its queue")

    def _names(self) -> list[str]:
        return [queue["name"] for queue in self._ask(self._queues + "?columns=name")]

    def _messages(self) -> dict[str, str]:
        """Return of each message its name, and its queue."""
        return {
            f"message {message['properties'].get('correlation_id')}": queue
            for queue in self._names()
            for message in self._looked_into(queue)
        }

    def _looked_into(self, queue: str) -> list[dict[str, Any]]:
        asked = {"count": _MOST, "ackmode": "ack_requeue_true", "encoding": "base64", "truncate": 1}
        request = urllib.request.Request(
            f"{self._api}{self._queues}/{quote(queue, safe='')}/get",
            data=json.dumps(asked).encode(),
            headers={**self._headers, "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=_PATIENCE) as answer:
                found: list[dict[str, Any]] = json.load(answer)
        except OSError:  # the queue went meanwhile
            return []
        return found
