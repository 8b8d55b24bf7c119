"""What the exceptions of Django's databases mean, read by the codes of the drivers below.

Django sorts them into a few classes that say nothing of whether trying again may help. The driver's
own exception is the cause of Django's.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured
from django.db import Error

__all__ = ["is_busy", "is_table_missing", "is_transient"]

_SQLITE: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_CANTOPEN,
    }
)
_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})

# Classes of https://www.postgresql.org/docs/current/errcodes-appendix.html, or whole codes:
# connection, rollback (serialization, deadlock), resources (disk full, too many connections),
# locks not available, operator's intervention (shutdown), system error, a standby that will
# be promoted, a transaction that was ended because it stood still, a row that another one inserted.
_POSTGRESQL: Final = ("08", "40", "53", "55P03", "57", "58", "25006", "25P03", "23505")
# An error of a connection that is not open yet has no code, only words.
_REFUSALS: Final = re.compile(
    "authentication failed|no password supplied|does not exist|no pg_hba.conf entry"
    "|not permitted to log in|permission denied|certificate verify failed|does not support SSL"
    "|invalid ",
    re.IGNORECASE,
)
_YET: Final = re.compile("No such file or directory|could not translate host name")

# Numbers of https://dev.mysql.com/doc/mysql-errors/8.0/en/ and
# https://mariadb.com/kb/en/mariadb-error-codes/: of the server, too many connections, shutdown,
# disk full, lost packets, lock timeouts, deadlocks, a row that another one inserted, a replica,
# killed statements; of the client, servers that cannot be reached, or are lost.
_MYSQL: Final = frozenset(
    {1020, 1021, 1040, 1053, 1062, 1077, 1079, 1152, 1158, 1159, 1160, 1161, 1180, 1184, 1205, 1206}
    | {1213, 1290, 1317, 1792, 1836, 1927, 1969, 3024, 3101, 4029, 4030}
    | {2002, 2003, 2005, 2006, 2013, 2055, 0}
)
_MYSQL_NO_TABLE: Final = 1146
_POSTGRESQL_NO_TABLE: Final = "42P01"


def is_transient(vendor: str, exc: Exception) -> bool | None:
    """Tell whether trying again may help; None if the exception is not a database's."""
    if isinstance(exc, ImproperlyConfigured):
        return False
    if not isinstance(exc, Error):
        return None
    cause = exc.__cause__ or exc
    judge = _JUDGES.get(vendor)
    return judge is not None and judge(cause)


def is_busy(exc: Exception) -> bool:
    """Tell whether SQLite could not write because somebody else does."""
    return isinstance(exc, Error) and _sqlite_code(exc.__cause__) in _BUSY


def is_table_missing(exc: Exception) -> bool:
    """Tell whether there is no such table."""
    cause: Any = exc.__cause__
    if isinstance(cause, sqlite3.OperationalError):
        return "no such table" in str(cause)
    return _sqlstate(cause) == _POSTGRESQL_NO_TABLE or _number(cause) == _MYSQL_NO_TABLE


def _of_sqlite(cause: BaseException) -> bool:
    return _sqlite_code(cause) in _SQLITE


def _of_postgresql(cause: BaseException) -> bool:
    code = _sqlstate(cause)
    if code is not None:
        return code.startswith(_POSTGRESQL)
    said = str(cause)
    return not _REFUSALS.search(said) or bool(_YET.search(said))


def _of_mysql(cause: BaseException) -> bool:
    return _number(cause) in _MYSQL


_JUDGES: Final[dict[str, Callable[[BaseException], bool]]] = {
    "sqlite": _of_sqlite,
    "postgresql": _of_postgresql,
    "mysql": _of_mysql,
}


def _sqlite_code(cause: object) -> int:
    code: int | None = getattr(cause, "sqlite_errorcode", None)
    return -1 if code is None else code & 0xFF


def _sqlstate(cause: object) -> str | None:
    code: str | None = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    return code


def _number(cause: BaseException | None) -> int:
    """Return the number of the server's error, or of the client's; 0 if there is none."""
    first = cause.args[0] if cause is not None and cause.args else 0
    return first if isinstance(first, int) else 0
