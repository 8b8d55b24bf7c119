"""pika by itself: each result is a persistent message to one queue, confirmed by the server."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Sequence
from typing import Any

from benchmarks.contenders.contender import Contender, driver

__all__ = ["Raw"]


class Raw(Contender):
    """basic_publish with confirmation; basic_consume. One connection for each thread that sends."""

    serves_threads = False  # a connection is one thread's

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._pika = driver("pika")
        # To pika a path of "/" alone is a virtual host without a name; to upshot, the default one.
        self._parameters = self._pika.URLParameters("amqp" + url[url.index("://") :].rstrip("/"))
        self._own = threading.local()
        self._found: dict[str, Any] = {}
        self._receiving: Any = None
        self._queue = ""

    def address(self) -> str:
        if self._receiving is None:
            self._receiving = self._pika.BlockingConnection(self._parameters)
            channel = self._receiving.channel()
            # Durable, and there for a minute without a reader, as upshot's is.
            declared = channel.queue_declare(
                f"bench.{uuid.uuid4().hex}", durable=True, arguments={"x-expires": 60_000}
            )
            self._queue = declared.method.queue
            channel.basic_qos(prefetch_count=1000)
            channel.basic_consume(self._queue, self._receive)
        return self._queue

    def _receive(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        self._found[properties.correlation_id] = json.loads(body)
        channel.basic_ack(method.delivery_tag)  # not before: a reader that dies loses nothing

    @property
    def _channel(self) -> Any:
        channel: Any = getattr(self._own, "channel", None)
        if channel is None:
            connection = self._pika.BlockingConnection(self._parameters)
            channel = self._own.channel = connection.channel()
            channel.confirm_delivery()
        return channel

    def store(self, task_id: str, value: object, address: str = "") -> None:
        properties = self._pika.BasicProperties(
            correlation_id=task_id, delivery_mode=self._pika.DeliveryMode.Persistent
        )
        self._channel.basic_publish("", address, json.dumps(value).encode(), properties)

    def fetch(self, task_id: str) -> Any:
        return self.wait(task_id, 30.0)

    def fetch_many(self, task_ids: Sequence[str]) -> list[Any]:
        return self.wait_many(task_ids, 30.0)

    def wait(self, task_id: str, timeout: float) -> Any:
        return self.wait_many([task_id], timeout)[0]

    def wait_many(self, task_ids: Sequence[str], timeout: float) -> list[Any]:
        self.address()
        until = time.monotonic() + timeout
        while not all(task_id in self._found for task_id in task_ids):
            if time.monotonic() > until:
                raise TimeoutError
            self._receiving.process_data_events(time_limit=1.0)
        return [self._found.pop(task_id) for task_id in task_ids]
