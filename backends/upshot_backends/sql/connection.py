"""What results and messages share: the database of one URL, open in one process.

SQLAlchemy supplies dialects and the schema. Its connection pool is left out: checking a connection
out and in takes SQLAlchemy about as long as SQLite takes for a whole transaction.
"""

from __future__ import annotations

import abc
import contextlib
import threading
import weakref
from collections.abc import Callable, Generator, Hashable
from typing import Final, Protocol, TypeVar

from sqlalchemy.engine import Dialect

from upshot import clock, retrying
from upshot.clock import Deadline
from upshot.errors import (
    ServiceClosedError,
    ServiceRejectedError,
    ServiceUnavailableError,
)
from upshot.retrying import DriverErrors
from upshot.url import Url
from upshot_backends.sql import schema
from upshot_backends.sql.diagnosis import Diagnosis
from upshot_backends.sql.options import SqlOptions
from upshot_backends.sql.schema import Schema
from upshot_backends.sql.watch import Watch
from upshot_backends.sql.weighing import LARGE, Cursor, WeighedCursor

__all__ = [
    "Connection",
    "Cursor",
    "Database",
    "DriverConnection",
]

T = TypeVar("T")

_MAX_IDLE: Final = 8  # connections kept open for the next call; a burst opens more, and closes them


class DriverConnection(Protocol):
    """What is used of a driver's connection (PEP 249)."""

    def close(self) -> None:
        """Undo an open transaction, and give the connection back."""


class Connection:
    """One open connection of the driver, outside any transaction.

    Attributes:
        driver: the driver's own object.
        cursor: its only cursor. Whoever runs a query fetches all rows: one that is half
            read would keep a snapshot open.
        patience: seconds for which the service was last told to wait for locks.
    """

    def __init__(self, driver: DriverConnection, cursor: WeighedCursor) -> None:
        self.driver = driver
        self.cursor = cursor
        self.patience = 0.0

    def close(self) -> None:
        """Undo an open transaction, and close the connection, whatever its state is."""
        self.driver.close()


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
        self._renew_locks()
        self._idle: list[Connection] = []
        self._in_use = 0
        self._held = False
        self._closed = False
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

    @property
    @abc.abstractmethod
    def diagnosis(self) -> Diagnosis:
        """What can be asked of the service beside its tables."""

    def _await_turn(self, deadline: Deadline) -> None:  # noqa: B027 - most have none
        """Wait for this writer's turn, where writers have to take turns."""

    def _end_turn(self) -> None:  # noqa: B027
        """Let the next writer go on."""

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

    def run(self, timeout: float, work: Callable[[Cursor], T], *, writes: bool = False) -> T:
        """Return what `work` returns, whose statements are each a transaction of its own.

        Args:
            timeout: seconds.
            work: runs one statement, or several of which each may stand alone.
            writes: whether a statement changes something.

        Raises:
            ServiceUnavailableError: others held the lock for `timeout` seconds, the disk is full.
            ServiceRejectedError: the database cannot be written to.
        """
        # In one piece what `write` has in blocks: SQLite finds a row in the time of three blocks.
        deadline = Deadline(timeout)
        connection: Connection | None = None
        counted = has_turn = False
        try:  # around all of it: Ctrl-C may come at any point
            with self._lock:
                self._admit()
                self._in_use += 1
                counted = True
            if not self._prepared:
                self._prepare(deadline)
            if writes:
                self._await_turn(deadline)
                has_turn = True
            connection = self._take(deadline)
            found = work(connection.cursor)
            unbroken, connection = connection, None
            self._put_back(unbroken)
            return found
        except Exception as exc:  # a driver may raise whatever it likes
            translated = self._translated(exc)
            if translated is None:
                raise
            raise translated from exc
        finally:
            try:
                if connection is not None:
                    self._discard(connection)
            finally:
                try:
                    if has_turn:
                        self._end_turn()
                finally:
                    self._leave(counted)

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
        with self._lock:
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
            with self._lock:
                self._admit()
                self._in_use += 1
                counted = True
            with self.translating():
                yield
        finally:
            self._leave(counted)

    @contextlib.contextmanager
    def translating(self) -> Generator[None]:
        """Raise one of upshot's errors in place of a driver's."""
        try:
            yield
        except Exception as exc:  # a driver may raise whatever it likes
            translated = self._translated(exc)
            if translated is None:
                raise
            raise translated from exc

    def _admit(self) -> None:
        """Wait until calls may begin; the lock is held.

        Raises:
            ServiceClosedError: the database was closed.
        """
        while self._held:
            self._changed.wait()
        if self._closed:
            raise ServiceClosedError(f"{self.url} was closed by this process")

    def _leave(self, counted: bool) -> None:
        """End a call, which was counted as in use or was not."""
        with self._lock:
            self._in_use -= counted
            if self._held and not self._in_use:
                self._changed.notify_all()
            is_last = counted and self._closed and not self._in_use
        if is_last:
            self._release()

    def _translated(self, exc: Exception) -> Exception | None:
        """Return one of upshot's errors for a driver's; None for what is no driver's."""
        transient = self._is_transient(exc)
        if transient is None:
            return None
        kinds = (type(exc),)
        errors = DriverErrors(transient=kinds) if transient else DriverErrors(permanent=kinds)
        return retrying.translate(exc, errors, self.url) or exc

    @contextlib.contextmanager
    def _transaction(self, deadline: Deadline) -> Generator[Cursor]:
        with self._turn(deadline):
            connection = self._take(deadline)
            with self._returned(connection):
                cursor = connection.cursor
                cursor.execute(self._begin(deadline))
                yield cursor
                cursor.execute("COMMIT")

    @contextlib.contextmanager
    def _turn(self, deadline: Deadline) -> Generator[None]:
        self._await_turn(deadline)
        try:
            yield
        finally:
            self._end_turn()

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
        self._put_back(connection)

    def _put_back(self, connection: Connection) -> None:
        if connection.cursor.carried > LARGE:
            self._discard(connection)
            return
        connection.cursor.carried = 0
        self._idle.append(connection)
        if len(self._idle) > _MAX_IDLE:
            self._close_idle(keep=_MAX_IDLE)

    def _renew_locks(self) -> None:
        """Make locks that nobody holds; for a new object, or the child after a fork."""
        self._lock = threading.RLock()  # a signal's handler may come while this thread holds it
        self._changed = threading.Condition(self._lock)
        self._preparing = threading.Lock()

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
