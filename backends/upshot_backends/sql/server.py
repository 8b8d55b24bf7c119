"""What is the same for every database that is a server: its connections, its tables, its forks.

A connection belongs to one call at a time and keeps to that call's deadline on the client's side,
so that a frozen server holds nobody up. A statement outside a transaction is one by itself.

The present moment is the server's. Every connection asks for it when it is opened, and in between
it is reckoned; after a minute, a sleep of the machine, or a second if the answer took long, the
next call asks again.

A burst of calls opens many connections, each of which takes some of the server's memory. What was
not needed for a while is closed then by the next call that ends: after so long that opening another
one instead takes a small part of the time, on a slow line as on a fast one.

After a fork the child gives up its copies of the parent's sockets without a word to the server:
were they left open, the parent's locks would outlive the parent for as long as the child lives.
"""

from __future__ import annotations

import abc
import contextlib
import math
import os
import secrets
from collections.abc import Callable, Generator, Hashable
from functools import partial
from typing import Final, TypeVar, final

from sqlalchemy.engine import Dialect

from upshot import clock, forking
from upshot.clock import Deadline
from upshot.errors import ServiceRejectedError
from upshot.url import Url
from upshot_backends.sql.connection import Connection, Cursor, Database
from upshot_backends.sql.options import SqlOptions
from upshot_backends.sql.readings import ClockReading
from upshot_backends.sql.schema import Schema, as_run
from upshot_backends.sql.statements import VersionStatements

__all__ = ["ServerConnection", "ServerDatabase"]

T = TypeVar("T")

_WORTH_KEEPING: Final = 50  # times as long as opening another one takes


class ServerConnection(Connection, abc.ABC):
    """A connection to a server, whose every wait ends at one moment.

    Attributes:
        reading: what the server's clock said last.
        idle_since: when a call gave it back last, on the monotonic clock.
    """

    reading: ClockReading
    idle_since: float = 0.0

    @abc.abstractmethod
    def read_clock(self) -> None:
        """Ask the server what its clock says."""

    @abc.abstractmethod
    def keep_to(self, until: float) -> None:
        """Let everything from now on end at `until`, on the monotonic clock."""

    @property
    @abc.abstractmethod
    def is_lost(self) -> bool:
        """True once either side has ended the connection."""

    @property
    @abc.abstractmethod
    def descriptor(self) -> int:
        """The socket; -1 if there is none."""


class ServerDatabase(Database):
    """The tables of one URL on a server.

    Args:
        url: the service; its host list is tried in order.
        options: the URL's own parameters, read.
        dialect: of SQLAlchemy; its parameters are named.
        schema: the tables, if they are not those that `options` alone describe.
    """

    def __init__(
        self, url: Url, options: SqlOptions, dialect: Dialect, schema: Schema | None = None
    ) -> None:
        super().__init__(url, options, dialect, schema)
        self._version_sql = VersionStatements(self.schema, dialect)
        self._open: set[ServerConnection] = set()
        self._reading: ClockReading | None = None
        self._opening = math.inf
        forking.register(self)

    # -- what a service decides -----------------------------------------------------------------

    @abc.abstractmethod
    def _open_one(self, place: int, deadline: Deadline) -> ServerConnection:
        """Open a connection to the host at a place of the URL's list, in autocommit mode."""

    @property
    @abc.abstractmethod
    def _places(self) -> int:
        """How many hosts there are."""

    @abc.abstractmethod
    def _create(self, deadline: Deadline) -> None:
        """Create what is missing; others may do so at the same moment."""

    @abc.abstractmethod
    def _says_missing(self, exc: Exception) -> bool:
        """Tell whether a table is not there."""

    @abc.abstractmethod
    def _says_forbidden(self, exc: Exception) -> bool:
        """Tell whether the user lacks a right."""

    # -- what is the same for all ---------------------------------------------------------------

    @property
    def identity(self) -> Hashable:
        return self.dialect.name, self.url.identity, self.schema.schema.schema, self.schema.prefix

    def now(self) -> float:
        if self._reading is None:
            raise AssertionError("the present moment is asked for within a call")
        return self._reading.now()

    @final
    def give_back(self, connection: ServerConnection) -> None:
        """Close a connection that `dedicate` opened; idempotent, raises nothing."""
        self._discard(connection)

    def dedicate(self, timeout: float) -> ServerConnection:
        deadline = Deadline(timeout)
        self._prepare(deadline)
        return self._connect(deadline)

    def _connect(self, deadline: Deadline) -> ServerConnection:
        for place in range(self._places):
            left = (deadline.left() or 0.0) / (self._places - place)
            began = clock.monotonic()
            try:
                connection = self._open_one(place, Deadline(left))
            except Exception as exc:
                if place + 1 == self._places or not self._is_transient(exc):
                    raise
            else:
                self._open.add(connection)
                self._opening = min(self._opening, clock.monotonic() - began)
                self._reading = connection.reading  # the last one's: hosts may differ
                return connection
        raise AssertionError("no host to connect to")

    def _set_patience(self, connection: Connection, deadline: Deadline) -> None:
        if isinstance(connection, ServerConnection):
            connection.keep_to(clock.monotonic() + (deadline.left() or 0.0))
            if self._reading is None or self._reading.is_doubtful:
                connection.read_clock()
                self._reading = connection.reading

    def _put_back(self, connection: Connection) -> None:
        if isinstance(connection, ServerConnection):
            connection.idle_since = clock.monotonic()
            self._close_unneeded(connection.idle_since - self._opening * _WORTH_KEEPING)
        super()._put_back(connection)

    def _close_unneeded(self, before: float) -> None:
        """Close what has been idle since then: the first ones, as calls take the last ones."""
        unneeded = 0
        for connection in self._idle:
            if not isinstance(connection, ServerConnection) or connection.idle_since >= before:
                break
            unneeded += 1
        if unneeded:
            self._close_idle(keep=len(self._idle) - unneeded)

    def _discard(self, connection: Connection) -> None:
        if isinstance(connection, ServerConnection):
            self._open.discard(connection)
            was_lost = connection.is_lost
            connection.close()
            if was_lost:
                self._close_idle()  # what ended this one has ended the others: a restart

    def _install(self, deadline: Deadline) -> int:
        found = self._version(deadline)
        if found is None:
            try:
                self._create(deadline)
            except Exception as exc:
                if not self._says_forbidden(exc):
                    raise
                raise ServiceRejectedError(
                    f"{self.url} lacks upshot's tables, and its user may not create them "
                    f"({self.url.scrub(str(exc))}); let somebody who may run what "
                    "`upshot backends ddl URL` prints"
                ) from exc
            found = self._version(deadline)
        if found is None:
            raise ServiceRejectedError(f"{self.url}: what was created is not there afterwards")
        return found

    def _version(self, deadline: Deadline) -> int | None:
        """Return the version of the tables; None if they, or the version, are not there."""
        connection = self._take(deadline)
        with self._returned(connection):
            try:
                connection.cursor.execute(self._version_sql.get, {})
            except Exception as exc:
                if self._says_missing(exc):
                    return None
                raise
            return max((int(found) for (found,) in connection.cursor.fetchall()), default=None)

    def look(self, timeout: float, work: Callable[[Cursor], T]) -> T:
        """Return what `work` returns, which reads; the tables may not be there yet."""
        with self.activity():
            connection = self._take(Deadline(timeout))
            with self._returned(connection):
                return work(connection.cursor)

    @contextlib.contextmanager
    def rehearsal(self, timeout: float) -> Generator[Url | None]:
        """See `upshot.backend.Rehearsing`: tables with another prefix, if there are none yet."""
        with self.activity():
            version = self._version(Deadline(timeout))
        if version is not None:
            yield None
            return
        other = Schema(f"doctor_{secrets.token_hex(4)}_", self.schema.schema.schema)
        try:
            yield self.url.varied(table_prefix=other.prefix)
        finally:
            self.look(timeout, partial(self._drop, other))

    def _drop(self, schema: Schema, cursor: Cursor) -> None:
        for table in reversed(schema.tables):
            name = self.dialect.identifier_preparer.format_table(table)
            cursor.execute(as_run(f"DROP TABLE IF EXISTS {name}", self.dialect))

    def after_fork(self) -> None:
        """Forget the parent's connections; runs in the child."""
        for connection in self._open:
            _let_go(connection.descriptor)
        forking.abandon(self._open)
        forking.abandon(self._idle)
        self._open, self._idle = set(), []
        self._in_use = 0
        self._renew_locks()


def _let_go(descriptor: int) -> None:
    """Put nothing in the place of a socket: its number must not come to mean something else."""
    if descriptor < 0:
        return
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    with contextlib.suppress(OSError):
        os.dup2(nothing, descriptor, inheritable=False)
    os.close(nothing)
