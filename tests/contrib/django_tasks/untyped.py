"""What the stubs of Django call its own classes, and is ours: as `Any`."""

from __future__ import annotations

from typing import Any

from django import tasks as django_tasks

from tests.contrib.django_tasks import tasks as declared

__all__ = ["default_task_backend", "task_backends", "tasks"]

tasks: Any = declared
task_backends: Any = django_tasks.task_backends
default_task_backend: Any = django_tasks.default_task_backend
