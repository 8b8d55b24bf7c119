"""Celery's backends that store results: Redis, MongoDB, SQL, memcached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Final, cast

from pymongo.errors import AutoReconnect, PyMongoError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from upshot.backend import Capabilities
from upshot_over_celery.adapter import PATIENCE, CeleryBackend, body_of, reading
from upshot_over_celery.driver import MemcacheError, MemcacheUnexpectedCloseError
from upshot_over_celery.listener import CeleryListener

__all__ = ["MemcachedBackend", "MongoBackend", "RedisBackend", "SqliteBackend"]

_MILLISECONDS: Final = 1000

_PLAIN: Final = Capabilities(
    shared=True,
    reread=True,
    intermediate=True,
    atomic=False,  # nothing in Celery's documentation speaks of concurrent writers
    push=False,
    persistent=False,
    transactional=False,
    batch=False,  # one write at a time
    scan=False,
    streams=False,  # Celery has none
    visibility=0.0,
    poll_interval=0.5,  # what `get()` has as `interval`
    expiry_resolution=None,
    max_record_bytes=8 * 2**20,
    max_key_bytes=1024,  # Celery takes any text for a task id
    text_keys=True,
)


class _KeyValueBackend(CeleryBackend):
    """Reads several ids at once as Celery's `get_many` does, and keeps those that are not ready."""

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | None]:
        backend = self._backend
        names = [backend.get_key_for_task(key) for key in keys]
        found: Any = backend.mget(names) if names else []
        if isinstance(found, dict):  # pymemcache's
            found = [cast("dict[str, Any]", found).get(name) for name in names]
        return [None if value is None else body_of(backend.decode_result(value)) for value in found]


def _stop(consumer: Any) -> None:
    """Stop a consumer, and let it forget its keys: handles that go later would ask Redis again."""
    consumer.subscribed_to.clear()
    consumer.stop()


class RedisBackend(_KeyValueBackend):
    """`celery+redis://…`: Celery's `redis://…`, with its own consumer for waits."""

    capabilities = replace(_PLAIN, push=True, expiry_resolution=1.0)
    driver_errors = reading(
        transient=(RedisConnectionError, RedisTimeoutError), permanent=(RedisError,)
    )
    settings: ClassVar = {
        "redis_socket_timeout": PATIENCE,
        "redis_socket_connect_timeout": PATIENCE,
        "result_backend_transport_options": {"retry_policy": {"timeout": PATIENCE}},
    }

    def _urls(self) -> dict[str, str]:
        return {"backend": self._url.driver_url("redis")}

    def listen(self, timeout: float) -> CeleryListener:
        app = self._make_app(**self._urls())
        return CeleryListener(app, app.backend, _stop)


class MongoBackend(CeleryBackend):
    """`celery+mongodb://…`: Celery's `mongodb://…`."""

    capabilities = replace(_PLAIN, persistent=True)
    driver_errors = reading(transient=(AutoReconnect,), permanent=(PyMongoError,))
    settings: ClassVar = {
        "mongodb_backend_settings": {
            "options": {
                # Of an operation with its second try; `socketTimeoutMS` is that of one request.
                "timeoutMS": int(PATIENCE * _MILLISECONDS),
            }
        }
    }

    def _urls(self) -> dict[str, str]:
        return {"backend": self._url.driver_url("mongodb")}


class SqliteBackend(CeleryBackend):
    """`celery+db+sqlite:///results.db`: Celery's `db+sqlite:///results.db`."""

    capabilities = replace(_PLAIN, persistent=True)
    driver_errors = reading(transient=(OperationalError,), permanent=(SQLAlchemyError,))

    def _urls(self) -> dict[str, str]:
        return {"backend": self._url.driver_url("db+sqlite")}


class MemcachedBackend(_KeyValueBackend):
    """`celery+cache+memcached://h1:11211,h2:11211`: Celery's `cache+memcached://h1:…;h2:…/`."""

    capabilities = replace(
        _PLAIN,
        expiry_resolution=2.0,
        max_record_bytes=700 * 2**10,  # as much as is less than 1 MiB in Celery's JSON
        max_key_bytes=233,  # memcached's 250 without Celery's prefix; upshot's namespace takes room
        text_keys=False,  # Celery makes a memcached key of an id as it is
    )
    driver_errors = reading(transient=(MemcacheUnexpectedCloseError,), permanent=(MemcacheError,))

    behind = 1  # it ticks once a second

    def _urls(self) -> dict[str, str]:
        servers = ";".join(f"{host}:{port or 11211}" for host, port in self._url.hosts)
        return {"backend": f"cache+memcached://{servers}/"}
