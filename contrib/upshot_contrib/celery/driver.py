"""Where upshot meets Celery: the names of it that this package uses.

Celery, kombu, vine and billiard have no type hints, and the stubs that others publish say of
several of these functions what they do not do. So the names are taken here, once, as `Any`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

__all__ = [
    "BaseBackend",
    "CeleryTimeoutError",
    "ChordError",
    "EncodeError",
    "GroupResult",
    "ImproperlyConfigured",
    "LazyList",
    "UnpickleableExceptionWrapper",
    "allow_join_result",
    "backend_by_url",
    "current_app",
    "decompress_payload",
    "loads",
    "maybe_signature",
    "promise",
    "result_from_tuple",
    "task_join_will_block",
]


def _taken(module: str, name: str, default: object = None) -> Any:
    return getattr(import_module(module), name, default)


def _as_it_is(payload: object) -> object:
    return payload


BaseBackend: Final = _taken("celery.backends.base", "BaseBackend")
GroupResult: Final = _taken("celery.result", "GroupResult")
allow_join_result: Final = _taken("celery.result", "allow_join_result")
result_from_tuple: Final = _taken("celery.result", "result_from_tuple")
backend_by_url: Final = _taken("celery.app.backends", "by_url")
current_app: Final = _taken("celery", "current_app")
maybe_signature: Final = _taken("celery", "maybe_signature")
task_join_will_block: Final = _taken("celery._state", "task_join_will_block")

LazyList: Final = _taken("celery.utils.functional", "_regen")
CeleryTimeoutError: Final = _taken("celery.exceptions", "TimeoutError")
ChordError: Final = _taken("celery.exceptions", "ChordError")
ImproperlyConfigured: Final = _taken("celery.exceptions", "ImproperlyConfigured")
UnpickleableExceptionWrapper: Final = _taken(
    "celery.utils.serialization", "UnpickleableExceptionWrapper"
)

EncodeError: Final = _taken("kombu.exceptions", "EncodeError")
loads: Final = _taken("kombu.serialization", "loads")
promise: Final = _taken("vine", "promise")

decompress_payload: Final = _taken("celery.backends.base", "decompress_payload", _as_it_is)
"""`result_compression` came with Celery 5.7; what older ones wrote is not compressed."""
