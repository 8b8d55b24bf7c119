"""PostgreSQL: one URL's connections, its schema, its tables.

Every statement outside a transaction is sent alone. A transaction is READ COMMITTED, whatever the
database's default is, and tells the server for how long to wait for locks, and for how long to keep
it open while nothing is sent. Both hold for the transaction alone. A proxy that lends a server's
connection for one transaction (PgBouncer with `pool_mode=transaction`) may stand between: then
nothing of a session is set, and no statement is prepared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast, final

from psycopg import errors
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.engine import Dialect

from upshot import clock
from upshot.clock import Deadline
from upshot.url import Url
from upshot_backends.sql.options import SqlOptions, check_scheme
from upshot_backends.sql.postgresql.cursor import PatientCursor, milliseconds
from upshot_backends.sql.postgresql.driver import (
    TimedConnection,
    connect,
    hosts,
    is_transient,
    parameters,
)
from upshot_backends.sql.readings import ClockReading
from upshot_backends.sql.schema import Schema, as_run
from upshot_backends.sql.server import ServerConnection, ServerDatabase
from upshot_backends.sql.weighing import WeighedCursor

if TYPE_CHECKING:
    from upshot_backends.sql.diagnosis import Diagnosis

__all__ = [
    "PostgresqlConnection",
    "PostgresqlDatabase",
    "PostgresqlOptions",
]

_LONGEST_NAME: Final = 63  # bytes; the server would cut a longer one, to another's name
_WHERE: Final = """
    SELECT nspname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE pg_class.oid = to_regclass(%(table)s)
"""
_CREATING: Final = 0x7570_7368_6F74  # "upshot": whoever creates tables holds this advisory lock
# Whether the connection leads straight to the server; if so, its prepared statements are planned
# anew each time: tables that are empty now may be long in a minute. And the moment, which is
# halfway between the question's arrival and the answer: in between, a server's new process reads
# catalogs, which would count as the way there.
_FACTS: Final = """
    SELECT extract(
        epoch FROM statement_timestamp() + (clock_timestamp() - statement_timestamp()) / 2
    )::float8, pg_backend_pid() = {process},
    CASE WHEN pg_backend_pid() = {process}
        THEN set_config('plan_cache_mode', 'force_custom_plan', false) END
"""
_IDLE: Final = 10.0  # seconds for which a transaction may stand still, as in a stopped process


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresqlOptions(SqlOptions):
    """The `upshot_…` parameters.

    Attributes:
        schema: the database schema that holds the tables; "" for the first one of the user's
            `search_path`, usually `public`.
        listen: whether LISTEN works through this URL. False polls; where it does not work and
            nobody says so, that is found out at the first wait.
    """

    schema: str = ""
    listen: bool = True

    def __post_init__(self) -> None:
        # Not super(): a dataclass with slots is another class than the one that super() means.
        SqlOptions.__post_init__(self)
        if len(self.schema.encode()) > _LONGEST_NAME or "\0" in self.schema:
            raise ValueError(f"upshot_schema has at most 63 bytes, unlike {self.schema!r}")


@final
class PostgresqlConnection(ServerConnection):
    """One connection of psycopg's.

    Attributes:
        timed: the driver's object.
        is_direct: whether it leads straight to the server. Such a connection knows the number of
            the server's process; what stands between gives another one.
    """

    is_direct: bool

    def __init__(self, timed: TimedConnection) -> None:
        cursor = PatientCursor(timed)
        super().__init__(timed, WeighedCursor(cursor))
        self.timed = timed
        self.read_clock()
        cursor.prepares = self.is_direct

    def read_clock(self) -> None:
        asked = clock.monotonic()
        self.cursor.execute(_FACTS.format(process=self.timed.pgconn.backend_pid))
        ((said, self.is_direct, _),) = self.cursor.fetchall()
        self.reading = ClockReading(said, asked)

    def keep_to(self, until: float) -> None:
        self.timed.until = until

    @property
    def is_lost(self) -> bool:
        return self.timed.closed

    @property
    def descriptor(self) -> int:
        return -1 if self.timed.closed else self.timed.fileno()


@final
class PostgresqlDatabase(ServerDatabase):
    """The tables in one schema of one database.

    Attributes:
        options: the URL's own parameters.
        hears: whether notifications come through this URL, as far as is known.

    Raises:
        UrlError: libpq does not take a parameter, or an option of ours is wrong.
    """

    def __init__(self, url: Url) -> None:
        check_scheme(url, ("postgresql", "postgres"), ("psycopg",))
        self.options = url.read_options(PostgresqlOptions)
        self._hosts = hosts(parameters(url))
        self.hears = self.options.listen
        self._channels = ""
        schema = Schema(self.options.table_prefix, self.options.schema or None)
        # SQLAlchemy gives this constructor no hints.
        dialect = cast("Callable[..., Dialect]", PGDialect_psycopg)(paramstyle="pyformat")
        super().__init__(url, self.options, dialect, schema)

    @property
    def diagnosis(self) -> Diagnosis:
        from upshot_backends.sql.postgresql import diagnosis  # nobody else needs it

        return diagnosis.PostgresqlDiagnosis(self)

    @property
    def _places(self) -> int:
        return len(self._hosts)

    def channel(self, kind: str) -> str:
        """Return the channel for notifications about one of the tables; connects if need be.

        The same tables have the same channels in every process, however their URL is written.
        """
        name = f"{self._channels}{kind}"
        if len(name.encode()) <= _LONGEST_NAME:
            return name
        return f"upshot_{hashlib.sha256(name.encode()).hexdigest()[:32]}"

    def dedicate(self, timeout: float) -> PostgresqlConnection:
        connection = super().dedicate(timeout)
        assert isinstance(connection, PostgresqlConnection)
        return connection

    def _open_one(self, place: int, deadline: Deadline) -> PostgresqlConnection:
        timed = connect(self._hosts[place], deadline.left() or 0.0)
        try:
            return PostgresqlConnection(timed)
        except BaseException:
            timed.close()
            raise

    def _begin(self, deadline: Deadline) -> str:
        left = deadline.left() or 0.0
        return (
            "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; "
            f"SET LOCAL lock_timeout = {milliseconds(left)}; "
            f"SET LOCAL idle_in_transaction_session_timeout = {milliseconds(max(left, _IDLE))}"
        )

    def _is_transient(self, exc: Exception) -> bool | None:
        return is_transient(exc)

    def _create(self, deadline: Deadline) -> None:
        with self._transaction(deadline) as cursor:
            # CREATE … IF NOT EXISTS is no protection against somebody who creates the same now.
            cursor.execute(f"SELECT pg_advisory_xact_lock({_CREATING})")
            for statement in self.schema.creation(self.dialect):
                cursor.execute(statement)

    def _install(self, deadline: Deadline) -> int:
        found = super()._install(deadline)
        write = self.dialect.identifier_preparer.format_table
        results = as_run(write(self.schema.results), self.dialect)
        connection = self._take(deadline)
        with self._returned(connection):
            connection.cursor.execute(_WHERE, {"table": results})
            ((schema,),) = connection.cursor.fetchall()
        self._channels = f"{schema}.{self.schema.prefix}"
        return found

    def _says_missing(self, exc: Exception) -> bool:
        return isinstance(exc, errors.UndefinedTable | errors.InvalidSchemaName)

    def _says_forbidden(self, exc: Exception) -> bool:
        return isinstance(exc, errors.InsufficientPrivilege)
