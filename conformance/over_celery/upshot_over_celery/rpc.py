"""Celery's backend that carries results: `rpc://`, over RabbitMQ."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Sequence
from typing import Any, ClassVar, Final

from upshot.backend import Capabilities, StoredRecord
from upshot.states import State
from upshot.url import Url
from upshot_over_celery.adapter import CeleryBackend, body_of, outcome_of, reading
from upshot_over_celery.driver import AMQPError, Context
from upshot_over_celery.listener import CeleryListener

__all__ = ["RpcBackend"]


class _Shared:
    """The one Celery app of this process for a broker, as an application has one.

    A reply queue of Celery's belongs to one thread: here a lock lets one thread at a time use it.
    """

    def __init__(self, app: Any) -> None:
        self.app = app
        self.backend = app.backend
        self.turn = threading.RLock()
        self.handles: dict[str, Any] = {}
        self.clients = 0
        self.has_queue = False


_SHARED: Final[dict[tuple[int, str], _Shared]] = {}
"""By process and broker: what a fork has copied is of the parent."""
_LOCK: Final = threading.Lock()


class RpcBackend(CeleryBackend):
    """`celery+rpc://user:password@host:port/vhost`: Celery's `rpc://` with that broker."""

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
        streams=False,  # Celery has none
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
        self._place = (os.getpid(), url.driver_url())
        with _LOCK:
            self._shared = _SHARED.setdefault(self._place, _Shared(self._app))
            self._shared.clients += 1
        self.reply_to = self._shared.backend.oid

    @property
    def _backend(self) -> Any:
        return self._shared.backend

    def _urls(self) -> dict[str, str]:
        return {"broker": self._url.driver_url("amqp"), "backend": "rpc://"}

    def listen(self, timeout: float) -> CeleryListener:
        shared = self._shared
        turn, handles = (lambda: shared.turn), shared.handles
        return CeleryListener(shared.app, shared.backend, self._stop, turn, kept=handles)

    def close(self) -> None:
        """Leave the app to the other clients; the last one stops its consumer and closes it."""
        with _LOCK:
            self._shared.clients -= 1
            is_last = not self._shared.clients
            if is_last:
                _SHARED.pop(self._place, None)
        if is_last:
            with self._shared.turn, contextlib.suppress(Exception):  # of what has no service
                self._shared.backend.result_consumer.stop()
            self._shared.app.close()

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        with self._shared.turn:
            for key in keys:
                self._shared.handles.pop(key, None)
                self._shared.app.AsyncResult(key, backend=self._backend).forget()

    def _stop(self, consumer: Any) -> None:
        """Stop nothing: others wait with the same consumer."""

    def _store(self, record: StoredRecord) -> bool:
        """Send a record to the queue of whoever awaits it; nobody can tell whether it applies."""
        shared = self._shared
        reply_to = record.reply_to or self.reply_to
        request = Context(id=record.key, correlation_id=record.key, reply_to=reply_to)
        with shared.turn:
            # What sending a task does; a worker that stores a later state does not.
            is_sent = record.state == State.QUEUED or not shared.has_queue
            if reply_to == self.reply_to and is_sent:
                shared.has_queue = True
                with shared.app.producer_or_acquire() as producer:
                    shared.backend.on_task_call(producer, record.key)
            shared.backend.store_result(
                record.key, outcome_of(record), record.state, request=request
            )
        return True

    def _load(self, key: str) -> bytes | None:
        """Ask the handle of whoever has one, or else another."""
        with self._shared.turn:
            handle = self._shared.handles.get(key)
            if handle is not None and handle.on_ready.ready:
                return body_of({"status": handle.state, "result": handle.result})
            return body_of(self._shared.backend.get_task_meta(key))
