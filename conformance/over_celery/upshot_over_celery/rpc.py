"""Celery's backend that carries results: `rpc://`, over RabbitMQ."""

from __future__ import annotations

import threading
from typing import Any, ClassVar

from upshot.backend import Capabilities, StoredRecord
from upshot.states import State
from upshot.url import Url
from upshot_over_celery.adapter import CeleryBackend, body_of, outcome_of, reading
from upshot_over_celery.driver import AMQPError, Context
from upshot_over_celery.listener import CeleryListener

__all__ = ["RpcBackend"]


class RpcBackend(CeleryBackend):
    """`celery+rpc://user:password@host:port/vhost`: Celery's `rpc://` with that broker.

    A reply queue of Celery's belongs to one thread. Here one backend, with one queue, is made for
    each client, and a lock lets one thread at a time use it: as in an application that has one.
    """

    capabilities = Capabilities(
        shared=False,  # "only by the client that initiated the task", says Celery's documentation
        reread=False,  # "a result can only be retrieved once"
        intermediate=True,
        atomic=False,
        push=True,
        persistent=False,
        transactional=False,
        batch=False,
        scan=False,
        visibility=0.0,
        poll_interval=0.5,
        expiry_resolution=None,
        max_record_bytes=8 * 2**20,
        max_key_bytes=255,  # of a correlation id; upshot's namespace takes room
        text_keys=True,
    )
    driver_errors = reading(transient=(AMQPError,), permanent=())
    settings: ClassVar = {"broker_connection_timeout": 4.0}

    def __init__(self, url: Url) -> None:
        super().__init__(url)
        self._turn = threading.RLock()
        self._has_queue = False
        self._only: Any = self._app.backend
        self.reply_to = self._only.oid

    @property
    def _backend(self) -> Any:
        return self._only

    def _urls(self) -> dict[str, str]:
        return {"broker": self._url.driver_url("amqp"), "backend": "rpc://"}

    def listen(self, timeout: float) -> CeleryListener:
        return CeleryListener(self._app, self._only, lambda: self._turn)

    def close(self) -> None:
        super().close()
        del self._only

    def _store(self, record: StoredRecord) -> bool:
        """Send a record to the queue of whoever awaits it; nobody can tell whether it applies."""
        reply_to = record.reply_to or self.reply_to
        request = Context(id=record.key, correlation_id=record.key, reply_to=reply_to)
        with self._turn:
            # What sending a task does; a worker that stores a later state does not.
            if reply_to == self.reply_to and not (self._has_queue and record.state != State.QUEUED):
                self._has_queue = True
                with self._app.producer_or_acquire() as producer:
                    self._only.on_task_call(producer, record.key)
            self._only.store_result(record.key, outcome_of(record), record.state, request=request)
        return True

    def _load(self, key: str) -> bytes | None:
        with self._turn:
            return body_of(self._only.get_task_meta(key))
