"""What `manage.py check` finds wrong before anything is sent.

upshot.E001  settings.UPSHOT is wrong, or a URL in it
upshot.E002  the database cannot keep results
upshot.E003  the database is in memory
upshot.E004  the database routers keep the table out of the database that results go to
upshot.W001  the table is missing (with --database, and when migrating)
upshot.W002  no broker is named

Of an alias in TASKS that names `upshot_contrib.django.tasks.UpshotBackend`, in its own words:

upshot.E001 to E004, W002  the same, of its OPTIONS and of where its results go
upshot.E005  the name of a queue is none
upshot.E006  INSTALLED_APPS lacks the app
upshot.E007  it shares queues with another, and not the results
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from typing import Any, Final

from django.core.checks import CheckMessage, Error
from django.core.checks import Warning as CheckWarning
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, router

from upshot import App, registry
from upshot.errors import ConfigError
from upshot_contrib.django.backend import DjangoBackend, alias_of
from upshot_contrib.django.serving import apps_of_project
from upshot_contrib.django.settings import NAME, has_broker, make_app
from upshot_contrib.django.statements import statements

__all__ = ["check_app", "check_backend", "check_database", "check_settings", "no_broker"]

_OLDEST_SQLITE: Final = (3, 35, 0)  # March 2021; older ones have no RETURNING


def check_settings(**_: Any) -> list[CheckMessage]:
    """Look at `settings.UPSHOT` itself."""
    try:
        app = make_app()
        registry.backend_class(app.backend_url)
        registry.broker_class(app.broker_url)
    except (ImproperlyConfigured, ConfigError) as exc:
        return [Error(str(exc), hint="`upshot config` explains every setting.", id="upshot.E001")]
    if not has_broker() and _is_used():
        hint = f'{NAME} = {{"broker": f"sqlite:///{{BASE_DIR / \'upshot.db\'}}"}}'
        return [no_broker(NAME, hint)]
    return []


def no_broker(where: str, hint: str) -> CheckMessage:
    """Return the warning that a setting names no broker."""
    return CheckWarning(
        f"settings.{where} names no broker: messages go to a file below the working folder, "
        "which is another one for a worker that is started elsewhere.",
        hint=hint,
        id="upshot.W002",
    )


def check_backend(**_: Any) -> list[CheckMessage]:
    """Look at the database that results go to, without connecting."""
    try:
        return check_app(make_app()) if _is_used() else []
    except ImproperlyConfigured:
        return []  # `check_settings` says so


def check_app(app: App) -> list[CheckMessage]:
    """Look at the database that an app's results go to, without connecting."""
    try:
        alias = _alias(app)
    except ConfigError as exc:
        return [Error(str(exc), id="upshot.E001")]
    return [] if alias is None else [*_unfit(alias), *_unmigratable(alias)]


def check_database(*, databases: Collection[str] | None = None, **_: Any) -> list[CheckMessage]:
    """Look whether the table is there, in the databases that Django may connect to.

    Where nothing was migrated yet, nothing is said: Django says so itself.
    """
    try:
        alias = _alias(make_app())
    except (ImproperlyConfigured, ConfigError):
        return []
    if alias is None or alias not in (databases or ()) or not _is_used():
        return []
    from upshot_contrib.django.models import Result  # a model needs a Django that is set up

    with connections[alias].cursor() as cursor:
        tables = connections[alias].introspection.table_names(cursor)
    if "django_migrations" not in tables or Result._meta.db_table in tables:
        return []
    return [
        CheckWarning(
            f"The database {alias!r} has no table for results.",
            hint=f"Run python manage.py migrate upshot --database={alias}",
            id="upshot.W001",
        )
    ]


def _is_used() -> bool:
    """Tell whether anything can be sent to the project's own app; if TASKS are wrong, yes."""
    try:
        return any(each.name == NAME for each in apps_of_project())
    except ImproperlyConfigured:
        return True


def _alias(app: App) -> str | None:
    """Return the alias of the database that results go to; None if they go elsewhere.

    Raises:
        ConfigError: the URL is one that the backend refuses.
    """
    url = app.backend_url
    if url.scheme != "django-db":
        return None
    DjangoBackend(url)  # opens nothing
    return alias_of(url)


def _unfit(alias: str) -> list[CheckMessage]:
    connection: Any = connections[alias]
    vendor: str = connection.vendor
    if statements(vendor, "", str) is None:
        return [
            Error(
                f"The database {alias!r} is {connection.display_name}: results are kept in SQLite, "
                "PostgreSQL, MariaDB and MySQL.",
                hint='Name another: "backend": "django-db://?using=ALIAS"',
                id="upshot.E002",
            )
        ]
    if vendor != "sqlite":
        return []
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        return [
            Error(
                f"Results need SQLite 3.35 or newer; this Python has {sqlite3.sqlite_version}.",
                id="upshot.E002",
            )
        ]
    if connection.is_in_memory_db():
        return [
            Error(
                f"The database {alias!r} is in memory, where no worker can see it.",
                hint='Name a file, or for tests "backend": "memory://".',
                id="upshot.E003",
            )
        ]
    return []


def _unmigratable(alias: str) -> list[CheckMessage]:
    from upshot_contrib.django.models import Result  # as above

    if router.allow_migrate_model(alias, Result):
        return []
    return [
        Error(
            f"Results go to the database {alias!r}, and DATABASE_ROUTERS do not let their table be "
            "made there.",
            hint='Add "upshot_contrib.django.routers.UpshotRouter" before the others.',
            id="upshot.E004",
        )
    ]
