"""Celery's result backends, used as its workers and its handles use them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from benchmarks.contenders.contender import Contender, driver

__all__ = ["Celery", "CeleryConfirmed"]

_PATIENCE: Final = 60.0  # seconds for what has been stored


class Celery(Contender):
    """Any service; defaults, except that results of rpc:// need a queue of their own."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        celery = driver("celery")
        scheme, _, rest = url.partition("://")
        self._is_rpc = scheme in {"rpc", "amqp"}
        self.serves_threads = not self._is_rpc  # each waits for what it has submitted itself
        if self._is_rpc:
            options = {"broker": "amqp://" + rest.rstrip("/"), "backend": "rpc://"}
        else:
            options = {"broker": "memory://", "backend": _translated(scheme, rest)}
        self._app: Any = celery.Celery("bench", **options)
        self._result: Any = driver("celery.result")

    def address(self) -> str:
        if not self._is_rpc:
            return ""
        with self._app.producer_pool.acquire(block=True) as producer:
            self._app.backend.on_task_call(producer, "any")
        return str(self._app.thread_oid)

    def expect(self, task_ids: Sequence[str]) -> None:
        if self._is_rpc:
            self.address()

    def store(self, task_id: str, value: object, address: str = "") -> None:
        request = driver("celery.app.task").Context(
            {"reply_to": address, "correlation_id": task_id, "id": task_id}
        )
        self._app.backend.store_result(task_id, value, "SUCCESS", request=request)

    def fetch(self, task_id: str) -> Any:
        return self._app.AsyncResult(task_id).get(timeout=_PATIENCE)

    def forget(self, task_id: str) -> None:
        self._app.AsyncResult(task_id).forget()

    def fetch_many(self, task_ids: Sequence[str]) -> list[Any]:
        return self.wait_many(task_ids, _PATIENCE)

    def wait(self, task_id: str, timeout: float) -> Any:
        return self._app.AsyncResult(task_id).get(timeout=timeout)

    def wait_many(self, task_ids: Sequence[str], timeout: float) -> list[Any]:
        handles = [self._app.AsyncResult(task_id) for task_id in task_ids]
        values: list[Any] = self._result.ResultSet(handles, app=self._app).get(timeout=timeout)
        return values

    def close(self) -> None:
        self._app.close()


class CeleryConfirmed(Celery):
    """With publisher confirms, so that `store` returns when RabbitMQ has the result safe."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._app.conf.broker_transport_options = {"confirm_publish": True}


def _translated(scheme: str, rest: str) -> str:
    """Return Celery's name for a service."""
    names = {
        "sqlite": "db+sqlite://",
        "postgresql": "db+postgresql+psycopg://",
        "memcached": "cache+memcached://",
    }
    return names.get(scheme, scheme + "://") + rest
