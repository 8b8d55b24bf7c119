"""What `manage.py check` finds wrong with an alias in TASKS; `django.checks` lists the ids."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error
from django.core.exceptions import ImproperlyConfigured

from upshot import App, registry
from upshot.errors import ConfigError
from upshot.message import is_name
from upshot_contrib.django.checks import check_app, no_broker
from upshot_contrib.django.tasks.services import apps_of_project

__all__ = ["check_alias"]

_APP = "upshot_contrib.django"


def check_alias(backend: Any) -> list[CheckMessage]:
    """Look at one alias, without connecting to anything."""
    where = f"TASKS[{backend.alias!r}]"
    try:
        app: App = backend.app
        registry.backend_class(app.backend_url)
        registry.broker_class(app.broker_url)
    except (ImproperlyConfigured, ConfigError) as exc:
        hint = "`upshot config` explains every setting."
        return [Error(_said_of(where, exc), hint=hint, id="upshot.E001")]
    return [
        *_queues(where, backend),
        *_installation(where),
        *(_services(where, app) if backend.options else []),
        *_collisions(where, app),
    ]


def _said_of(where: str, exc: Exception) -> str:
    said = str(exc)
    return said if where in said else f"settings.{where}: {said}"


def _queues(where: str, backend: Any) -> list[CheckMessage]:
    written: object = settings.TASKS[backend.alias].get("QUEUES")
    if isinstance(written, str):  # Django takes it for a set of letters
        said = f"settings.{where}['QUEUES'] is a list of names, and {written!r} is text."
        return [Error(said, hint=f'"QUEUES": [{written!r}]', id="upshot.E005")]
    return [
        Error(
            f"settings.{where}['QUEUES'] has {name!r}: the name of a queue is 1 to 255 printable "
            "characters.",
            id="upshot.E005",
        )
        for name in backend.queues
        if not is_name(name)
    ]


def _installation(where: str) -> list[CheckMessage]:
    if apps.is_installed(_APP):
        return []
    return [
        Error(
            f"settings.{where} needs {_APP!r} in INSTALLED_APPS, which imports the tasks of all "
            "apps and brings the worker.",
            id="upshot.E006",
        )
    ]


def _services(where: str, app: App) -> list[CheckMessage]:
    """Look at what the project's own app is not looked at for."""
    if app.settings.broker_url is None:
        return [no_broker(where, '"OPTIONS": {"broker": "redis://localhost"}'), *check_app(app)]
    return check_app(app)


def _collisions(where: str, app: App) -> list[CheckMessage]:
    """Look for workers that would take this alias's messages and store the results elsewhere."""
    try:
        mine = apps_of_project()
    except ImproperlyConfigured:
        return []  # the check of that alias says so
    queues = next(set(each.queues) for each in mine if each.app is app)
    return [
        Error(
            f"settings.{where} and {other.name} have queues of one name on one broker, "
            f"{', '.join(sorted(shared))}, and other results: a worker of one would run the tasks "
            "of both, and store all results where it has its own.",
            hint='Give one of them another "namespace".',
            id="upshot.E007",
        )
        for other in mine
        if other.app is not app
        and _address(other.app) == _address(app)
        and str(other.app.backend_url) != str(app.backend_url)
        and (shared := queues.intersection(other.queues))
    ]


def _address(app: App) -> tuple[str, str]:
    return str(app.broker_url), app.settings.namespace
