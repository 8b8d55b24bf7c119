"""What results and messages share: the database of one URL, open in one process.

SQLAlchemy supplies dialects and the schema. Its connection pool is left out: checking a connection
out and in takes SQLAlchemy about as long as SQLite takes for a whole transaction.
"""

from __future__ import annotations

import abc
import contextlib
import re
import threading
import weakref
from collections.abc import Generator, Hashable
from dataclasses import dataclass
from typing import Final, Protocol

from sqlalchemy.engine import Dialect

from upshot import clock, retrying
from upshot.clock import Deadline
from upshot.errors import (
    ServiceClosedError,
    ServiceRejectedError,
    ServiceUnavailableError,
    UrlError,
)
from upshot.retrying import DriverErrors
from upshot.url import Url
from upshot_backends.sql import schema
from upshot_backends.sql.schema import Schema
from upshot_backends.sql.weighing import LARGE, Cursor, WeighedCursor

__all__ = [
    "Connection",
    "Cursor",
    "Database",
    "DriverConnection",
    "SqlOptions",
    "Watch",
    "check_scheme",
]

_MAX_IDLE: Final = 8  # connections kept open for the next call; a burst opens more, and closes them
_SCHEMES: Final = ("db+", "sqla+")  # as Celery and kombu write SQLAlchemy's URLs
_PREFIX: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,29}")  # 30 leaves room below 63 characters


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlOptions:
    """The `upshot_…` parameters of every SQL URL.

    Attributes:
        table_prefix: what the name of each table begins with: 1 to 30 ASCII letters, digits and
            underscores. A broker stores records in the same transaction as messages only if the
            backend has the same prefix.
    """

    table_prefix: str = "upshot_"

    def __post_init__(self) -> None:
        if not _PREFIX.fullmatch(self.table_prefix):
            raise ValueError(
                "upshot_table_prefix is 1 to 30 ASCII letters, digits and underscores, "
                f"not {self.table_prefix!r}"
            )


class DriverConnection(Protocol):
    """What is used of a driver's connection (PEP 249)."""

    def close(self) -> None:
        """Undo an open transaction, and give the connection back."""


class Connection:
    """One open connection of the driver, outside any transaction.

    Attributes:
        driver: the driver's own object.
        cursor: its only cursor, weighed. Whoever runs a query fetches all rows: one that is half
            read would keep a snapshot open.
        patience: seconds for which the service was last told to wait for locks.
    """

    def __init__(self, driver: DriverConnection, cursor: Cursor) -> None:
        self.driver = driver
        self.cursor = WeighedCursor(cursor)
        self.patience = 0.0

    def close(self) -> None:
        """Undo an open transaction, and close the connection, whatever its state is."""
        self.driver.close()


class Watch(abc.ABC):
    """Tells that something was committed. One thread waits at a time; any may interrupt."""

    @abc.abstractmethod
    def wait(self, timeout: float) -> bool:
        """Block for at most `timeout` seconds; True if there may have been a commit.

        Whatever was committed since the last `wait` that answered True makes the next one answer
        True at once, and so does the first one ever: look, wait, look again misses nothing.
        """

    @abc.abstractmethod
    def hurry(self) -> None:
        """Expect a commit soon: look more often for a while."""

    def rest(self) -> None:  # noqa: B027 - most have nothing to stop
        """Expect no `wait` for a while; raises nothing."""

    @abc.abstractmethod
    def interrupt(self) -> None:
        """Make the running `wait`, or else the next one, return soon."""

    @abc.abstractmethod
    def close(self) -> None:
        """Give the connection back; idempotent, raises nothing.

        A `wait` that follows opens another, and answers True at once.
        """


class Database(abc.ABC):
    """The tables of one URL, open in one process; usable from any thread.

    Connections are opened when needed. The first call creates the tables that are missing. What
    a driver raises leaves here as one of upshot's errors, because drivers tell by codes, not by
    classes, whether trying again may help.

    Args:
        url: the service.
        options: the URL's own parameters, read.
        dialect: of SQLAlchemy; its parameters are named.
        schema: the tables, if they are not those that `options` alone describe.
    """

    def __init__(
        self, url: Url, options: SqlOptions, dialect: Dialect, schema: Schema | None = None
    ) -> None:
        self.url = url
        self.dialect = dialect
        self.schema = schema or Schema(options.table_prefix)
        self._changed = threading.Condition()
        self._idle: list[Connection] = []
        self._in_use = 0
        self._held = False
        self._closed = False
        self._preparing = threading.Lock()
        self._prepared = False
        self._watches: weakref.WeakSet[Watch] = weakref.WeakSet()

    # -- what a service decides -----------------------------------------------------------------

    @property
    @abc.abstractmethod
    def identity(self) -> Hashable:
        """Equal for two objects on the same tables."""

    @abc.abstractmethod
    def _connect(self, deadline: Deadline) -> Connection:
        """Open a connection in autocommit mode."""

    @abc.abstractmethod
    def _set_patience(self, connection: Connection, deadline: Deadline) -> None:
        """Let the connection's next statements take, and wait for locks, until `deadline`."""

    def _turn(self, deadline: Deadline) -> contextlib.AbstractContextManager[None]:
        """Wait for this writer's turn, where writers have to take turns."""
        return contextlib.nullcontext()

    @abc.abstractmethod
    def _begin(self, deadline: Deadline) -> str:
        """Return the statement that begins a transaction that writes."""

    @abc.abstractmethod
    def _is_transient(self, exc: Exception) -> bool | None:
        """Tell whether trying again may help; None if the exception is not the driver's."""

    @abc.abstractmethod
    def _install(self, deadline: Deadline) -> int:
        """Create the tables that are missing; return the version of those that are there now.

        Raises:
            ServiceRejectedError: they are missing and cannot be created.
        """

    # -- what is the same for all ---------------------------------------------------------------

    @contextlib.contextmanager
    def read(self, timeout: float) -> Generator[Cursor]:
        """Run single statements that change nothing, each of them on its own."""
        deadline = Deadline(timeout)
        with self.activity():
            self._prepare(deadline)
            connection = self._take(deadline)
            with self._returned(connection):
                yield connection.cursor

    def alone(self, timeout: float) -> contextlib.AbstractContextManager[Cursor]:
        """Run one statement that changes something, as a transaction of its own."""
        return self.write(timeout)

    @contextlib.contextmanager
    def write(self, timeout: float) -> Generator[Cursor]:
        """Run one transaction: committed at the end of the block, undone if the block raises.

        Raises:
            ServiceUnavailableError: others held the lock for `timeout` seconds, the disk is full.
            ServiceRejectedError: the database cannot be written to.
        """
        deadline = Deadline(timeout)
        with self.activity():
            self._prepare(deadline)
            with self._transaction(deadline) as cursor:
                yield cursor

    def prepare(self, timeout: float) -> None:
        """Look at the tables, unless that is done; to be called within `activity`."""
        self._prepare(Deadline(timeout))

    def attach(self, watch: Watch) -> Watch:
        """Interrupt a watch when the database is closed, and close it then; return it."""
        self._watches.add(watch)
        return watch

    def dedicate(self, timeout: float) -> Connection:
        """Open a connection for one owner, who closes it; to be called within `activity`."""
        deadline = Deadline(timeout)
        self._prepare(deadline)
        return self._connect(deadline)

    def now(self) -> float:
        """Return the present moment on the clock that all who use the tables share.

        It is asked for by who has a cursor: before, a server's clock may be unknown.
        """
        return clock.now()

    def close(self) -> None:
        """Let no call begin, and close everything, after the last running call. Idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            is_last = not self._in_use
        if is_last:
            self._release()
        for watch in list(self._watches):
            watch.interrupt()

    @contextlib.contextmanager
    def activity(self) -> Generator[None]:
        """Count as in use, so that no fork happens meanwhile; translate the driver's errors.

        Raises:
            ServiceClosedError: the database was closed.
        """
        counted = False
        try:  # around all of it: Ctrl-C may come at any point
            with self._changed:
                while self._held:
                    self._changed.wait()
                if self._closed:
                    raise ServiceClosedError(f"{self.url} was closed by this process")
                self._in_use += 1
                counted = True
            with self.translating():
                yield
        finally:
            with self._changed:
                self._in_use -= counted
                if not self._in_use:
                    self._changed.notify_all()
                is_last = counted and self._closed and not self._in_use
            if is_last:
                self._release()

    @contextlib.contextmanager
    def translating(self) -> Generator[None]:
        """Raise one of upshot's errors in place of a driver's."""
        try:
            yield
        except Exception as exc:  # a driver may raise whatever it likes
            transient = self._is_transient(exc)
            if transient is None:
                raise
            kinds = (type(exc),)
            errors = DriverErrors(transient=kinds) if transient else DriverErrors(permanent=kinds)
            raise retrying.translate(exc, errors, self.url) or exc from exc

    @contextlib.contextmanager
    def _transaction(self, deadline: Deadline) -> Generator[Cursor]:
        with self._turn(deadline):
            connection = self._take(deadline)
            with self._returned(connection):
                cursor = connection.cursor
                cursor.execute(self._begin(deadline))
                yield cursor
                cursor.execute("COMMIT")

    def _take(self, deadline: Deadline) -> Connection:
        try:
            connection = self._idle.pop()  # atomic, and the last one used is the warmest
        except IndexError:
            connection = self._connect(deadline)
        try:
            self._set_patience(connection, deadline)
        except BaseException:
            self._discard(connection)
            raise
        return connection

    @contextlib.contextmanager
    def _returned(self, connection: Connection) -> Generator[None]:
        """Keep the connection for the next call.

        After any error it is closed, which undoes all; and so it is after something large.
        """
        try:
            yield
        except BaseException:
            self._discard(connection)
            raise
        if connection.cursor.carried > LARGE:
            self._discard(connection)
            return
        connection.cursor.carried = 0
        self._idle.append(connection)
        if len(self._idle) > _MAX_IDLE:
            self._close_idle(keep=_MAX_IDLE)

    def _discard(self, connection: Connection) -> None:
        """Close a connection that may be in any state; raises nothing."""
        connection.close()

    def _release(self) -> None:
        """Close everything; no call is running. The next one, if it may, opens anew."""
        self._close_idle()
        for watch in list(self._watches):
            watch.close()
        self._prepared = False

    def _close_idle(self, keep: int = 0) -> None:
        while len(self._idle) > keep:
            try:
                connection = self._idle.pop(0)
            except IndexError:  # another thread took it
                return
            self._discard(connection)

    def _prepare(self, deadline: Deadline) -> None:
        """Create what is missing, once; refuse tables of a newer upshot.

        Raises:
            ServiceRejectedError: the tables have a layout that this version does not know.
        """
        if self._prepared:
            return
        if not self._preparing.acquire(timeout=deadline.left() or 0.0):
            raise ServiceUnavailableError(f"{self.url} is slow: another thread looks at its tables")
        try:
            if self._prepared:
                return
            found = self._install(deadline)
            if found > schema.VERSION:
                raise ServiceRejectedError(
                    f"the tables in {self.url} have version {found}, this upshot reads up to "
                    f"{schema.VERSION}: upgrade upshot, or choose other tables with "
                    "?upshot_table_prefix=…"
                )
            self._prepared = True
        finally:
            self._preparing.release()


def check_scheme(url: Url, services: tuple[str, ...], drivers: tuple[str, ...]) -> None:
    """Refuse a URL of another service, or one that asks for a driver which upshot does not use.

    Args:
        url: `service://` or `service+driver://`, with `db+` or `sqla+` before it or not.
        services: what the service is called.
        drivers: what SQLAlchemy calls the drivers that may be named.

    Raises:
        UrlError: the URL names something else.
    """
    scheme = url.scheme
    for prefix in _SCHEMES:
        scheme = scheme.removeprefix(prefix)
    service, _, driver = scheme.partition("+")
    if service not in services or (driver and driver not in drivers):
        raise UrlError(f"{url}: upshot has no such driver; write {services[0]}://")
