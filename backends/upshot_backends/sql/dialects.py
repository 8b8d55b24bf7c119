"""Which SQL service a URL means: the one place where services are told apart."""

from __future__ import annotations

from typing import Final

from upshot.errors import UrlError
from upshot.url import Url
from upshot_backends.sql.connection import Database, SqlOptions
from upshot_backends.sql.sqlite import SqliteDatabase

__all__ = ["open_database"]

_PREFIXES: Final = ("db+", "sqla+")  # as Celery and kombu write SQLAlchemy's URLs


def open_database(url: Url) -> Database:
    """Return the database that a URL names; connects when first used.

    Raises:
        UrlError: the scheme, the path or an `upshot_…` parameter is wrong.
        DriverMissingError: the service's driver is not installed, or too old.
    """
    scheme = url.scheme
    for prefix in _PREFIXES:
        scheme = scheme.removeprefix(prefix)
    options = url.read_options(SqlOptions)
    service, _, driver = scheme.partition("+")
    if service == "sqlite" and driver in ("", "pysqlite"):
        return SqliteDatabase(url, options)
    raise UrlError(f"{url}: no SQL service has the scheme {url.scheme!r}; there is sqlite://")
