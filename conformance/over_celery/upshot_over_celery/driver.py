"""The names that this package uses of Celery and of drivers that have no type hints."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

__all__ = [
    "EXCEPTION_STATES",
    "AMQPError",
    "BackendError",
    "Celery",
    "CeleryTimeoutError",
    "Context",
    "KombuError",
    "MemcacheError",
    "MemcacheUnexpectedCloseError",
    "OperationalError",
]


def _taken(module: str, name: str) -> Any:
    return getattr(import_module(module), name)


Celery: Final = _taken("celery", "Celery")
Context: Final = _taken("celery.app.task", "Context")
BackendError: Final = _taken("celery.exceptions", "BackendError")
CeleryTimeoutError: Final = _taken("celery.exceptions", "TimeoutError")
EXCEPTION_STATES: Final[frozenset[str]] = _taken("celery.states", "EXCEPTION_STATES")
KombuError: Final = _taken("kombu.exceptions", "KombuError")
OperationalError: Final = _taken("kombu.exceptions", "OperationalError")
AMQPError: Final = _taken("amqp.exceptions", "AMQPError")
MemcacheError: Final = _taken("pymemcache.exceptions", "MemcacheError")
MemcacheUnexpectedCloseError: Final = _taken(
    "pymemcache.exceptions", "MemcacheUnexpectedCloseError"
)
