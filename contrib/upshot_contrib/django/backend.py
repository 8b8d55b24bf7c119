"""Results in one of a Django project's databases, through Django's own connections.

Service: SQLite 3.35 or newer in a file, PostgreSQL, MariaDB, MySQL. What it cannot do: push.
Waiters read what they wait for again and again, at most 50 ms apart; who waits for an id that is
forgotten meanwhile waits until the timeout.

Layout: the table of `upshot_contrib.django.models`, which `manage.py migrate` makes. Expired
records are removed by those that store: after every 500 records, or the first one of a minute, up
to 1 000 of them. No reader sees them meanwhile.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final, final

import django
from django.apps import apps
from django.conf import ENVIRONMENT_VARIABLE, settings
from django.db import connections, router

from upshot import clock
from upshot.backend import Backend, Capabilities, StoredRecord
from upshot.errors import ConfigError, ServiceError, UrlError
from upshot.retrying import DriverErrors
from upshot.url import Url
from upshot_backends.sql.paging import PAGE, keys_in_pages
from upshot_contrib.django.connection import Connection, Place
from upshot_contrib.django.connections import Connections
from upshot_contrib.django.statements import Cursor, Statements, statements

if TYPE_CHECKING:
    from upshot.finding import Finding

__all__ = ["DjangoBackend", "alias_of", "open_django"]

_SWEEP_RECORDS: Final = 500  # stored records, or
_SWEEP_SECONDS: Final = 60.0  # seconds between two sweeps
_SWEEP_LIMIT: Final = 1000  # expired records removed in one sweep
_SWEEP_PATIENCE: Final = 1.0  # seconds that a store may be held up by a sweep
_USING: Final = "using"
_APP: Final = "upshot_contrib.django"
_AROUND: Final = 64 * 2**10  # bytes of a statement that are not the body: far more than there are


@dataclass(frozen=True)
class _Options:
    """There are no `upshot_…` parameters: a misspelt one is an error, not a silence."""


@final
class _Open:
    """What the first call finds out: where the table is, and how to speak to it."""

    def __init__(self, url: Url, learn: Callable[[Connection], object]) -> None:
        open_django()
        self.alias = alias = alias_of(url)
        host, port = url.hosts[0] if url.hosts else (None, None)
        self.connections = Connections(Place(alias, host, port), url, learn)
        self.statements = _statements(alias)


@final
class DjangoBackend(Backend):
    """`django-db://` is the database that Django's routers name for the model `Result`.

    `django-db://?using=results` is the one of that name in DATABASES. A host and a port, as in
    `django-db://127.0.0.1:6432?using=results`, take the place of its HOST and PORT.
    """

    capabilities = Capabilities(
        shared=True,
        reread=True,
        intermediate=True,
        atomic=True,
        push=False,
        persistent=True,
        transactional=True,
        batch=True,
        scan=True,
        streams=True,
        visibility=0.0,
        poll_interval=0.05,
        expiry_resolution=0.001,
        max_record_bytes=64 * 2**20,
        max_key_bytes=1024,
        text_keys=True,
    )
    driver_errors: ClassVar = DriverErrors()  # `Connections` reads them, by their codes

    def __init__(self, url: Url) -> None:
        url.read_options(_Options)
        unknown = [name for name, _ in url.query if name != _USING]
        if unknown:
            raise UrlError(f"{url}: there is ?{_USING}=ALIAS, and no {unknown[0]!r}")
        if url.path.strip("/") or url.username or url.password or len(url.hosts) > 1:
            raise UrlError(
                f"{url}: name the database by its alias, {url.scheme}://?{_USING}=ALIAS; "
                "the rest stands in Django's settings"
            )
        self._url = url
        self._lock = threading.Lock()
        self._opened: _Open | None = None
        self._closed = False
        self._unswept = 0
        self._next_sweep = clock.monotonic()

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        if not records:
            return []
        deadline, opened = clock.Deadline(timeout), self._open()
        begin = "" if opened.statements.is_one(records) else opened.statements.begin
        answers = opened.connections.run(
            timeout,
            lambda cursor: opened.statements.store(cursor, records),
            writes=True,
            begin=begin,
        )
        self._unswept += len(records)
        if self._unswept >= _SWEEP_RECORDS or clock.monotonic() >= self._next_sweep:
            self._unswept = 0
            self._next_sweep = clock.monotonic() + _SWEEP_SECONDS
            with contextlib.suppress(ServiceError):  # the records are stored; the next one sweeps
                self.sweep(_SWEEP_LIMIT, deadline.left(_SWEEP_PATIENCE) or 0.0)
        return answers

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | None]:
        if not keys:
            return []
        opened = self._open()
        return opened.connections.run(timeout, lambda cursor: opened.statements.load(cursor, keys))

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        if keys:
            opened = self._open()
            opened.connections.run(
                timeout, lambda cursor: opened.statements.delete(cursor, keys), writes=True
            )

    def scan(self, prefix: str, timeout: float) -> Iterator[str]:
        opened = self._open()
        yield from keys_in_pages(  # lazily: nothing is opened before the first key is asked for
            lambda first: opened.connections.run(timeout, partial(_page, opened, first)), prefix
        )

    def sweep(self, limit: int, timeout: float) -> int:
        """Remove up to `limit` expired records; return how many: fewer than `limit`, no more."""
        opened = self._open()
        return opened.connections.run(
            timeout, lambda cursor: opened.statements.sweep(cursor, limit)
        )

    def close(self) -> None:
        with self._lock:
            self._closed = True
            opened = self._opened
        if opened is not None:
            opened.connections.close()

    def diagnose(self, timeout: float) -> Sequence[Finding]:
        """See `upshot.backend.Diagnosing`."""
        from upshot_contrib.django import diagnosis  # which nobody else needs

        opened = self._open()
        return diagnosis.diagnose(opened.alias, partial(opened.connections.run, timeout))

    def advise(self, said: str) -> str:
        """See `upshot.backend.Diagnosing`."""
        from upshot_contrib.django import diagnosis  # as above

        return diagnosis.advise(said, self._opened.alias if self._opened else "ALIAS")

    def _learn(self, connection: Connection) -> None:
        """Narrow what is declared, where a server takes less; a body travels in Base64 then."""
        packet = connection.largest_packet
        if packet is None:
            return
        largest = max(0, packet - _AROUND) // 4 * 3
        if largest < self.capabilities.max_record_bytes:
            self.capabilities = dataclasses.replace(self.capabilities, max_record_bytes=largest)

    def _open(self) -> _Open:
        opened = self._opened
        if opened is None:
            with self._lock:
                opened = self._opened = self._opened or _Open(self._url, self._learn)
                if self._closed:  # meanwhile
                    opened.connections.close()
        return opened


def open_django() -> None:
    """Set Django up, unless that is done or going on.

    Raises:
        ConfigError: nothing says which settings to take.
    """
    if apps.ready or apps.loading:
        return
    if not settings.configured and not os.environ.get(ENVIRONMENT_VARIABLE):
        raise ConfigError(
            "django-db:// needs a Django project: run this by manage.py, or name the project's "
            f"settings, such as {ENVIRONMENT_VARIABLE}=shop.settings"
        )
    django.setup()


def alias_of(url: Url) -> str:
    """Return the alias of the database that a URL means; Django is set up.

    Raises:
        ConfigError: DATABASES has no such alias, or it stands where a host does, or INSTALLED_APPS
            lacks the app.
    """
    if not apps.is_installed(_APP):
        raise ConfigError(f"{url}: INSTALLED_APPS lacks {_APP!r}")
    from upshot_contrib.django.models import Result  # a model needs a Django that is set up

    named = next((value for name, value in url.query if name == _USING), None)
    if named is None and url.hosts and url.hosts[0][0] in connections:
        host = url.hosts[0][0]
        raise ConfigError(f"{url}: {host!r} is no host but in DATABASES; write ?{_USING}={host}")
    alias = named or router.db_for_write(Result)
    if alias not in connections:
        known = ", ".join(sorted(connections))
        raise ConfigError(f"{url}: DATABASES has no {alias!r}; it has {known}")
    return alias


def _statements(alias: str) -> Statements:
    from upshot_contrib.django.models import Result  # as above

    connection = connections[alias]
    found = statements(connection.vendor, Result._meta.db_table, connection.ops.quote_name)
    if found is None:
        raise ConfigError(
            f"results are kept in SQLite, PostgreSQL, MariaDB and MySQL; the database {alias!r} is "
            f"{connection.display_name}"
        )
    return found


def _page(opened: _Open, first: str, cursor: Cursor) -> list[str]:
    return opened.statements.scan(cursor, first, PAGE)
