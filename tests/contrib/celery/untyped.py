"""What these tests use of Celery, which has no type hints, as `Any`."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = [
    "AbortableTask",
    "Celery",
    "CeleryTimeoutError",
    "ChordError",
    "Context",
    "GroupResult",
    "Ignore",
    "ImproperlyConfigured",
    "MaxRetriesExceededError",
    "ResultSet",
    "TaskRevokedError",
    "UnpickleableExceptionWrapper",
    "chain",
    "chord",
    "group",
]

_celery: Any = import_module("celery")
_exceptions: Any = import_module("celery.exceptions")
_result: Any = import_module("celery.result")

Celery = _celery.Celery
chain = _celery.chain
chord = _celery.chord
group = _celery.group
Context: Any = import_module("celery.app.task").Context
AbortableTask: Any = import_module("celery.contrib.abortable").AbortableTask
GroupResult = _result.GroupResult
ResultSet = _result.ResultSet
UnpickleableExceptionWrapper: Any = import_module(
    "celery.utils.serialization"
).UnpickleableExceptionWrapper

CeleryTimeoutError = _exceptions.TimeoutError
ChordError = _exceptions.ChordError
Ignore = _exceptions.Ignore
ImproperlyConfigured = _exceptions.ImproperlyConfigured
MaxRetriesExceededError = _exceptions.MaxRetriesExceededError
TaskRevokedError = _exceptions.TaskRevokedError
