"""The Django project of this process, and the only one: Django is set up once."""

from __future__ import annotations

import atexit
import tempfile
from pathlib import Path
from typing import Any

import django
from django.conf import settings

from upshot.client import ResultClient
from upshot.url import Url
from upshot_contrib.django.backend import DjangoBackend

__all__ = ["NAMESPACE", "opened", "set_up", "sqlite"]

NAMESPACE = "django-tests"


def sqlite(file: Path) -> dict[str, Any]:
    """Return an entry of DATABASES for a file."""
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(file),
        "OPTIONS": {"init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL"},
    }


def set_up() -> None:
    """Set Django up for a project with two databases and the admin, unless that is done."""
    if settings.configured:
        return
    folder = tempfile.TemporaryDirectory(prefix="upshot-django-")
    atexit.register(folder.cleanup)
    files = Path(folder.name)
    contrib = ("admin", "auth", "contenttypes", "sessions", "messages", "staticfiles")
    settings.configure(
        DATABASES={"default": sqlite(files / "a.sqlite3"), "other": sqlite(files / "b.sqlite3")},
        INSTALLED_APPS=[*(f"django.contrib.{name}" for name in contrib), "upshot_contrib.django"],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {
                    "context_processors": [
                        "django.template.context_processors.request",
                        "django.contrib.auth.context_processors.auth",
                        "django.contrib.messages.context_processors.messages",
                    ]
                },
            }
        ],
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],  # it is quick
        ROOT_URLCONF="tests.contrib.django.urls",
        SECRET_KEY="nothing is secret here",
        STATIC_URL="static/",
        USE_TZ=True,
        UPSHOT={"broker": "memory://", "namespace": NAMESPACE},
    )
    django.setup()


def opened(text: str, *, timeout: float = 5.0) -> ResultClient:
    """Open results by their URL, in the project's namespace."""
    url = Url.parse(text)
    return ResultClient(lambda: DjangoBackend(url), url=url, namespace=NAMESPACE, timeout=timeout)
