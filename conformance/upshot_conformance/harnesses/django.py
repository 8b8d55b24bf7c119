"""Looks into the databases of a Django project, with the harness that each database has."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Final
from urllib.parse import quote, unquote

from upshot.errors import ConfigError
from upshot.url import Url
from upshot_conformance.harness import CannotStartError, Harness, UnavailableError
from upshot_conformance.harnesses import django_project
from upshot_conformance.harnesses.mariadb import MariadbHarness
from upshot_conformance.harnesses.postgresql import PostgresqlHarness
from upshot_conformance.harnesses.sqlite import SqliteHarness

__all__ = ["DjangoHarness", "DjangoPostgresqlHarness"]

_SETTINGS: Final = "DJANGO_SETTINGS_MODULE"
_ENGINES: Final = "django.db.backends."


class DjangoHarness(Harness):
    """A server object is what it is for the harness of the database below.

    The URL's alias is looked up in the project's settings; without one it is `default`. What
    `start` starts is the project of `django_project`, with a database for each harness here.
    """

    scheme: ClassVar[str] = "django-db"
    _alias: ClassVar[str] = "default"
    _below: ClassVar[type[Harness]] = SqliteHarness

    def __init__(self, url: Url) -> None:
        super().__init__(url)
        alias = dict(url.query).get("using", "default")
        kind, below = _database(_settings(alias))
        self._inner = kind(below)

    @classmethod
    @contextlib.contextmanager
    def start(cls) -> Generator[str]:
        """Start the database, and make the project's table in it."""
        with cls._below.start() as below:
            _announce(cls._alias, _entry(cls._below, Url.parse(below)))
            _migrate(cls._alias)
            yield f"django-db://?using={cls._alias}"

    def raw_objects(self, namespace: str) -> set[str]:
        return self._inner.raw_objects(namespace)

    def purge(self, namespace: str) -> None:
        self._inner.purge(namespace)

    def server_version(self) -> str:
        import django

        return f"{self._inner.server_version()} by Django {django.get_version()}"

    def read_raw(self, name: str) -> bytes:
        return self._inner.read_raw(name)

    def ttl(self, name: str) -> float | None:
        return self._inner.ttl(name)

    def subscriptions(self, namespace: str) -> set[str]:
        return self._inner.subscriptions(namespace)

    def connections(self) -> int:
        return self._inner.connections()

    def addresses(self) -> Sequence[tuple[str, int]]:
        return self._inner.addresses()

    def crash(self) -> None:
        self._inner.crash()

    def recover(self) -> None:
        self._inner.recover()

    def freeze(self) -> None:
        self._inner.freeze()

    def thaw(self) -> None:
        self._inner.thaw()

    def writes_blocked(self) -> AbstractContextManager[None]:
        return self._inner.writes_blocked()

    def close(self) -> None:
        self._inner.close()

    @property
    def over_network(self) -> bool:  # type: ignore[override]  # as it is for the database below
        """Whether the database is a server."""
        return self._inner.over_network


class DjangoPostgresqlHarness(DjangoHarness):
    """The same with a private PostgreSQL."""

    scheme: ClassVar[str] = "django-db-postgresql"
    _alias: ClassVar[str] = "postgresql"
    _below: ClassVar[type[Harness]] = PostgresqlHarness


def _settings(alias: str) -> dict[str, Any]:
    from django.db import connections

    if alias not in connections:
        raise ConfigError(f"the Django project has no database {alias!r}")
    found: dict[str, Any] = connections[alias].settings_dict
    return found


def _database(entry: dict[str, Any]) -> tuple[type[Harness], Url]:
    """Return the harness for one of DATABASES, and its URL as that harness takes it."""
    engine = str(entry["ENGINE"]).removeprefix(_ENGINES)
    if engine == "sqlite3":
        return SqliteHarness, Url.parse(f"sqlite:///{quote(str(entry['NAME']))}")
    kinds: dict[str, type[Harness]] = {"postgresql": PostgresqlHarness, "mysql": MariadbHarness}
    if engine not in kinds:
        raise UnavailableError(f"nothing here can look into a database of {entry['ENGINE']}")
    user, password = (quote(str(entry[name]), safe="") for name in ("USER", "PASSWORD"))
    port = f":{entry['PORT']}" if entry["PORT"] else ""
    place = f"{entry['HOST'] or 'localhost'}{port}/{quote(str(entry['NAME']))}"
    kind = kinds[engine]
    return kind, Url.parse(f"{kind.scheme}://{user}:{password}@{place}")


def _entry(kind: type[Harness], url: Url) -> dict[str, Any]:
    """Return an entry of DATABASES for what a harness started."""
    if kind is SqliteHarness:
        return {
            "ENGINE": f"{_ENGINES}sqlite3",
            "NAME": unquote(url.path.removeprefix("/")),
            # As docs/django.md advises; without it the suite takes three times as long.
            "OPTIONS": {"init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL"},
        }
    host, port = url.hosts[0]
    return {
        "ENGINE": f"{_ENGINES}{'postgresql' if kind is PostgresqlHarness else 'mysql'}",
        "NAME": unquote(url.path.removeprefix("/")),
        "USER": url.username,
        "PASSWORD": url.password,
        "HOST": host,
        "PORT": str(port),
    }


def _announce(alias: str, entry: dict[str, Any]) -> None:
    """Let this process, and those that it starts, know of a database."""
    chosen = os.environ.setdefault(_SETTINGS, django_project.__name__)
    if chosen != django_project.__name__:
        raise CannotStartError(
            f"{_SETTINGS} names {chosen!r}: unset it for a private database, or test yours with "
            "django-db://?using=ALIAS"
        )
    known = json.loads(os.environ.get(django_project.VARIABLE, "{}"))
    os.environ[django_project.VARIABLE] = json.dumps(known | {alias: entry})
    django_project.DATABASES[alias] = entry


def _migrate(alias: str) -> None:
    import django
    from django.core.management import call_command
    from django.db import connections

    django.setup()
    connections.settings.update(connections.configure_settings(django_project.DATABASES))
    call_command("migrate", database=alias, verbosity=0)
    connections[alias].close()
