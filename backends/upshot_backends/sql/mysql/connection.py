"""MySQL and MariaDB: one URL's connections, and its tables.

Reads must see what others have finished. So every connection is READ COMMITTED: under REPEATABLE
READ, the default, the first read of a transaction would fix what all later ones see. The session's
SQL mode is strict, so that nothing is cut to fit.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, cast, final

from pymysql import err
from pymysql.constants import ER
from sqlalchemy.dialects.mysql.pymysql import MySQLDialect_pymysql

from upshot import clock
from upshot.clock import Deadline
from upshot.errors import PayloadTooLargeError
from upshot.url import Url
from upshot_backends.sql.connection import Connection
from upshot_backends.sql.mysql.driver import (
    TimedConnection,
    connect,
    is_transient,
    number,
    parameters,
    understood,
)
from upshot_backends.sql.options import SqlOptions, check_scheme
from upshot_backends.sql.readings import ClockReading
from upshot_backends.sql.schema import Schema
from upshot_backends.sql.server import ServerConnection, ServerDatabase
from upshot_backends.sql.weighing import WeighedCursor

if TYPE_CHECKING:
    from upshot_backends.sql.diagnosis import Diagnosis

__all__ = ["MysqlConnection", "MysqlDatabase", "PacketCursor"]

_THERE_ALREADY: Final = (ER.TABLE_EXISTS_ERROR, ER.DUP_KEYNAME, ER.DUP_ENTRY)
_FORBIDDEN: Final = (ER.TABLEACCESS_DENIED_ERROR, ER.DBACCESS_DENIED_ERROR)
_IDLE: Final = 10  # seconds for which a transaction may stand still, as in a stopped process
_SET_UP: Final = (
    "SET SESSION autocommit = 1, sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'",
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
)
# Not UNIX_TIMESTAMP(), which counts whole seconds, or passes through the server's time zone, where
# an hour may come twice.
_MICROSECONDS: Final = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))"


@final
class PacketCursor:
    """A cursor that refuses what the server would refuse by hanging up.

    Args:
        timed: the connection.
        largest: bytes of the longest statement that the server takes.
    """

    def __init__(self, timed: TimedConnection, largest: int) -> None:
        # `Any`: PyMySQL takes a statement as bytes too, its hints do not say so.
        self._cursor: Any = timed.cursor()
        self._largest = largest

    @property
    def rowcount(self) -> int:
        """How many rows the last statement changed or found."""
        return int(self._cursor.rowcount)

    def execute(self, statement: str, values: Mapping[str, object] | None = None, /) -> object:
        """Run a statement with named parameters; a list stands for the values after IN.

        Raises:
            PayloadTooLargeError: with its values it is longer than `max_allowed_packet`.
        """
        text = self._cursor.mogrify(statement, values).encode()
        if len(text) >= self._largest:
            raise PayloadTooLargeError(
                f"a statement of {len(text)} bytes is too long for this server; its setting "
                f"max_allowed_packet is {self._largest}",
                size=len(text),
                limit=self._largest,
            )
        with understood():
            return self._cursor.execute(text)

    def fetchall(self) -> list[Any]:
        """Return the rows that are left."""
        return list(self._cursor.fetchall())


@final
class MysqlConnection(ServerConnection):
    """One connection of PyMySQL's, set up.

    Attributes:
        timed: the driver's object.
        largest: the server's `max_allowed_packet`, bytes.
        is_mariadb: which of the two services it is.
    """

    def __init__(self, timed: TimedConnection) -> None:
        cursor = timed.cursor()
        for statement in _SET_UP:
            cursor.execute(statement)
        asked = clock.monotonic()
        cursor.execute(f"SELECT {_MICROSECONDS}, @@max_allowed_packet, VERSION()")
        facts = cast("tuple[tuple[int, int, str]]", cursor.fetchall())
        ((microseconds, largest, version),) = facts
        self.reading = ClockReading(microseconds / 1e6, asked)
        super().__init__(timed, WeighedCursor(PacketCursor(timed, largest)))
        self.timed = timed
        self.largest = largest
        self.is_mariadb = "mariadb" in version.lower()

    def read_clock(self) -> None:
        asked = clock.monotonic()
        self.cursor.execute(f"SELECT {_MICROSECONDS}")
        ((microseconds,),) = self.cursor.fetchall()
        self.reading = ClockReading(microseconds / 1e6, asked)

    def keep_to(self, until: float) -> None:
        self.timed.keep_to(until)

    def close(self) -> None:
        with contextlib.suppress(err.Error):  # closed already
            self.timed.close()

    @property
    def is_lost(self) -> bool:
        return self.timed.is_lost

    @property
    def descriptor(self) -> int:
        return self.timed.descriptor


@final
class MysqlDatabase(ServerDatabase):
    """The tables in one database.

    Args:
        url: the service.
        learn: told `max_allowed_packet`, in bytes, by each connection; None if nobody cares.

    Raises:
        UrlError: the URL names no database, or PyMySQL does not take a parameter.
    """

    def __init__(self, url: Url, learn: Callable[[int], None] | None = None) -> None:
        check_scheme(url, ("mysql", "mariadb"), ("pymysql",))
        options = url.read_options(SqlOptions)
        self._hosts = parameters(url)
        self._learn = learn
        schema = Schema(options.table_prefix, stamped=True)
        super().__init__(url, options, MySQLDialect_pymysql(paramstyle="pyformat"), schema)

    @property
    def diagnosis(self) -> Diagnosis:
        from upshot_backends.sql.mysql.diagnosis import MysqlDiagnosis  # nobody else needs it

        return MysqlDiagnosis(self)

    @property
    def _places(self) -> int:
        return len(self._hosts)

    def _open_one(self, place: int, deadline: Deadline) -> MysqlConnection:
        timed = connect(self._hosts[place], deadline.left() or 0.0)
        try:
            connection = MysqlConnection(timed)
        except BaseException:
            with contextlib.suppress(err.Error):
                timed.close()
            raise
        if self._learn is not None:
            self._learn(connection.largest)
        return connection

    def _set_patience(self, connection: Connection, deadline: Deadline) -> None:
        super()._set_patience(connection, deadline)
        # In whole seconds, which is how the server counts them, and so that the usual call, with
        # nearly all of its time left, need not set it.
        patience = max(1, math.ceil(deadline.left() or 0.0))
        if patience != connection.patience and isinstance(connection, MysqlConnection):
            idle = f", idle_transaction_timeout = {_IDLE}" if connection.is_mariadb else ""
            connection.cursor.execute(
                f"SET SESSION innodb_lock_wait_timeout = {patience}, "
                f"lock_wait_timeout = {patience}{idle}"
            )
            connection.patience = patience

    def _begin(self, deadline: Deadline) -> str:
        return "START TRANSACTION"

    def _is_transient(self, exc: Exception) -> bool | None:
        return is_transient(exc)

    def _create(self, deadline: Deadline) -> None:
        connection = self._take(deadline)
        with self._returned(connection):
            for statement in self.schema.creation(self.dialect):
                try:
                    connection.cursor.execute(statement)
                except err.Error as exc:
                    if number(exc) not in _THERE_ALREADY:
                        raise

    def _says_missing(self, exc: Exception) -> bool:
        return number(exc) == ER.NO_SUCH_TABLE

    def _says_forbidden(self, exc: Exception) -> bool:
        return number(exc) in _FORBIDDEN
