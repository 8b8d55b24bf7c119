"""What `upshot doctor` asks a Django project's database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from django.conf import settings
from django.db import connections

from upshot.finding import Advice, Finding, Level, advice_for
from upshot_contrib.django.statements import Cursor

__all__ = ["advise", "diagnose"]

_VERSIONS: Final = {
    "sqlite": "SELECT sqlite_version()",
    "postgresql": "SHOW server_version",
    "mysql": "SELECT VERSION()",
}

_ADVICE: Final[Advice] = (
    (
        ("no such table", "does not exist", "doesn't exist"),
        "python manage.py migrate upshot --database=ALIAS",
    ),
    (
        ("authentication failed", "access denied", "password"),
        "correct USER and PASSWORD of the database in the project's settings",
    ),
    (
        ("permission denied", "command denied", "readonly database"),
        "grant the user of that database SELECT, INSERT, UPDATE, DELETE on the table of results",
    ),
)


def diagnose(
    alias: str, run: Callable[[Callable[[Cursor], list[Any]]], list[Any]]
) -> list[Finding]:
    """Look at one of the databases in the project's settings.

    Args:
        alias: its name in DATABASES.
        run: runs what is given a cursor, on a connection of upshot's own.
    """
    connection: Any = connections[alias]

    def ask(cursor: Cursor) -> list[Any]:
        cursor.execute(_VERSIONS[connection.vendor])
        return list(cursor.fetchall())

    version = str(run(ask)[0][0])
    name = connection.display_name
    findings = [
        Finding(Level.OK, f"{name} {version}, the database {alias!r} of {_project()}"),
    ]
    if connection.vendor == "sqlite":
        findings.append(
            Finding(
                Level.NOTE,
                "only processes of this machine share it",
                "workers elsewhere need a database that has a server",
            )
        )
    return findings


def advise(said: str, alias: str) -> str:
    """Return what to change where the database of that alias said this; "" if unknown."""
    return advice_for(said, _ADVICE).replace("ALIAS", alias)


def _project() -> str:
    """Return what the project's settings are called."""
    return str(settings.SETTINGS_MODULE or "settings that a program has made")
