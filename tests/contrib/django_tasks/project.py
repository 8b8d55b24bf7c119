"""The Django 6 project of the process, with several aliases in TASKS: Django is set up once."""

from __future__ import annotations

import atexit
import tempfile
from pathlib import Path
from typing import Any, Final

import django
from django.conf import settings

__all__ = ["BACKEND", "IN_MEMORY", "TASKS", "set_up"]

BACKEND: Final = "upshot_contrib.django.tasks.UpshotBackend"

IN_MEMORY: Final = {"broker": "memory://", "backend": "memory://"}

TASKS: Final[dict[str, Any]] = {
    "default": {
        "BACKEND": BACKEND,
        "QUEUES": ["default", "mail"],
        "OPTIONS": {**IN_MEMORY, "namespace": "tasks"},
    },
    "anywhere": {
        "BACKEND": BACKEND,
        "QUEUES": [],
        "OPTIONS": {**IN_MEMORY, "namespace": "anywhere"},
    },
    "shared": {"BACKEND": BACKEND, "QUEUES": ["shared"]},
    "immediate": {
        "BACKEND": "django.tasks.backends.immediate.ImmediateBackend",
        "QUEUES": [],
    },
}


def set_up() -> None:
    """Set Django up, unless that is done."""
    if settings.configured:
        return
    folder = tempfile.TemporaryDirectory(prefix="upshot-django-tasks-")
    atexit.register(folder.cleanup)
    file = Path(folder.name) / "db.sqlite3"
    settings.configure(
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(file)}},
        INSTALLED_APPS=[
            *(f"django.contrib.{name}" for name in ("admin", "auth", "contenttypes", "messages")),
            "tests.contrib.django_tasks",
            "upshot_contrib.django",
        ],
        SILENCED_SYSTEM_CHECKS=["admin.E403", "admin.E408", "admin.E409", "admin.E410"],
        SECRET_KEY="nothing is secret here",
        USE_TZ=True,
        UPSHOT={**IN_MEMORY, "namespace": "project"},
        TASKS=TASKS,
    )
    django.setup()
