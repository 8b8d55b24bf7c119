"""SQLite: the file, its settings, its one writer, its forks.

Write-ahead log, so that readers and the writer do not wait for each other. `synchronous=NORMAL`: a
killed process loses nothing that was committed, a power cut may lose the last commits, and nothing
corrupts the file. Every write begins with `BEGIN IMMEDIATE`: a transaction that read first and then
wants to write is refused at once, without waiting, if another one wrote in between.

A SQLite connection must not cross a fork: its locks belong to the process, and the library's own
books in the child would say otherwise. So before a fork every connection is closed, once the calls
that run in other threads are over; parent and child open their own when they next need one.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar, final
from urllib.parse import quote, unquote

from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

from upshot import forking
from upshot.clock import Deadline
from upshot.errors import DriverMissingError, ServiceRejectedError, UpshotError, UrlError
from upshot.url import Url
from upshot_backends.sql.connection import Connection, Cursor, Database
from upshot_backends.sql.options import SqlOptions, check_scheme
from upshot_backends.sql.records import text
from upshot_backends.sql.sqlite.cursor import BEGIN, SqliteCursor
from upshot_backends.sql.sqlite.gate import WriteGate
from upshot_backends.sql.sqlite.notices import WriteNotices
from upshot_backends.sql.statements import VersionStatements

if TYPE_CHECKING:
    from upshot_backends.sql.diagnosis import Diagnosis

__all__ = ["SqliteDatabase"]

T = TypeVar("T")

_MINIMUM: Final = (3, 35, 0)  # March 2021; older ones are not tested, and some lack JSON
_FORK_PATIENCE: Final = 1.0  # seconds that a fork waits for running calls to end
_PATIENCE_STEP: Final = 0.125  # seconds, to which the time that is left is rounded up
_TRANSIENT: Final = frozenset(
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
_TRANSIENT_OS: Final = frozenset(
    {
        errno.EAGAIN,
        errno.EDQUOT,
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOLCK,
        errno.ENOMEM,
        errno.ENOSPC,
    }
)
_CREATING: Final = threading.Lock()  # nobody connects between the opening and the closing
_OPEN: Final[weakref.WeakSet[SqliteDatabase]] = weakref.WeakSet()


@final
class _SqliteConnection(Connection):
    """One connection of sqlite3's.

    Whatever still holds its cursor, as an exception's traceback does, keeps SQLite from closing it,
    and so its transaction open and everybody else out. So what is open is ended first.
    """

    def __init__(self, driver: sqlite3.Connection) -> None:
        self._connection, self._own_cursor = driver, driver.cursor()
        super().__init__(driver, SqliteCursor(self._own_cursor))

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):  # closed already, or the disk is in trouble
            self._own_cursor.close()
            self._connection.rollback()
        super().close()


@final
class SqliteDatabase(Database):
    """The tables in one file.

    Raises:
        UrlError: the URL names a host or a user, no file, a database in memory, or a parameter of
            a driver.
        DriverMissingError: Python was built with a SQLite that is too old.
    """

    def __init__(self, url: Url) -> None:
        check_scheme(url, ("sqlite",), ("pysqlite",))
        if sqlite3.sqlite_version_info < _MINIMUM:
            needed = ".".join(map(str, _MINIMUM))
            raise DriverMissingError(
                f"{url} needs SQLite {needed} or newer; this Python has {sqlite3.sqlite_version}"
            )
        options = url.read_options(SqlOptions)
        super().__init__(url, options, SQLiteDialect_pysqlite(paramstyle="named"))
        self._path = _path(url)
        self._gate = WriteGate(self._path, str(url))
        _OPEN.add(self)

    @property
    def identity(self) -> Hashable:
        return "sqlite", os.path.realpath(self._path), self.schema.prefix

    @property
    def path(self) -> str:
        """The absolute path of the file."""
        return self._path

    @property
    def diagnosis(self) -> Diagnosis:
        from upshot_backends.sql.sqlite.diagnosis import SqliteDiagnosis  # nobody else needs it

        return SqliteDiagnosis(self)

    def look(self, timeout: float, work: Callable[[Cursor], T]) -> T:
        """Return what `work` returns, which reads; the file is there, its tables may not be."""
        with self.activity():
            connection = self._connect(Deadline(timeout))
            with contextlib.closing(connection):
                return work(connection.cursor)

    def notices(self) -> WriteNotices | None:
        """Hear of writes to the log, which is there while a connection is open that has read.

        None if the kernel does not tell.
        """
        try:
            return WriteNotices(f"{os.path.realpath(self._path)}-wal")
        except OSError:
            return None

    def _release(self) -> None:
        super()._release()
        self._gate.close()

    def _connect(self, deadline: Deadline) -> Connection:
        # mode=rw: a file that somebody removed is not made anew without tables and rights.
        driver = sqlite3.connect(
            f"file:{quote(os.fsencode(self._path))}?mode=rw",
            uri=True,
            timeout=0.0,
            isolation_level=None,
            check_same_thread=False,
        )
        driver.text_factory = text  # SQLite holds any bytes as text, if somebody says so
        connection = _SqliteConnection(driver)
        try:
            self._set_patience(connection, deadline)
            driver.execute("PRAGMA synchronous=NORMAL")
        except BaseException:
            driver.close()
            raise
        return connection

    def _set_patience(self, connection: Connection, deadline: Deadline) -> None:
        # In steps, so that the usual call, with nearly all of its time left, need not set it.
        left = deadline.left() or 0.0
        if connection.patience - _PATIENCE_STEP < left <= connection.patience:
            return
        patience = math.ceil(left / _PATIENCE_STEP) * _PATIENCE_STEP
        if patience != connection.patience:
            connection.cursor.execute(f"PRAGMA busy_timeout={round(patience * 1000)}")
            connection.patience = patience

    def _await_turn(self, deadline: Deadline) -> None:
        self._gate.enter(deadline)

    def _end_turn(self) -> None:
        self._gate.leave()

    def _begin(self, deadline: Deadline) -> str:
        return BEGIN

    def _is_transient(self, exc: Exception) -> bool | None:
        if isinstance(exc, sqlite3.Error):
            code: int | None = getattr(exc, "sqlite_errorcode", None)
            return code is not None and code & 0xFF in _TRANSIENT
        if isinstance(exc, OSError) and not isinstance(exc, UpshotError):
            return exc.errno in _TRANSIENT_OS
        return None

    def _install(self, deadline: Deadline) -> int:
        self._make_file(deadline)
        version = VersionStatements(self.schema, self.dialect)
        with self._transaction(deadline) as cursor:
            for statement in self.schema.creation(self.dialect):
                cursor.execute(statement)
            cursor.execute(version.get)
            return max(int(found) for (found,) in cursor.fetchall())

    def _make_file(self, deadline: Deadline) -> None:
        """Create the file, readable by its owner only, and switch it to the write-ahead log."""
        folder = os.path.dirname(self._path)
        if not os.path.isdir(folder):
            try:
                os.mkdir(folder, 0o700)
            except FileNotFoundError as exc:
                raise UrlError(f"{self.url}: the folder {folder} cannot be made") from exc
            except FileExistsError:
                pass  # another process made it
        _create(self._path)
        with self._turn(deadline):  # two that switch at the same moment would refuse each other
            connection = self._take(deadline)
            with self._returned(connection):
                connection.cursor.execute("PRAGMA journal_mode=WAL")
                if connection.cursor.fetchall() != [("wal",)]:
                    raise ServiceRejectedError(
                        f"{self.url} cannot have a write-ahead log; is it on a network file system?"
                    )

    # -- forks ----------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Let no call begin, wait for those that run, and close every connection."""
        with self._changed:
            self._held = True
            self._changed.wait_for(lambda: not self._in_use, timeout=_FORK_PATIENCE)
            is_quiet = not self._in_use
        if is_quiet:
            self._release()

    def after_fork(self) -> None:
        """Let calls begin again, in the parent."""
        with self._changed:
            self._held = False
            self._changed.notify_all()

    def after_fork_in_child(self) -> None:
        """Begin anew in the child, without what could not be closed before the fork."""
        forking.abandon(self._idle)
        self._idle = []
        self._in_use, self._held = 0, False
        self._renew_locks()
        # Closed, lest this process keep others out after its parent died within a transaction.
        self._gate.close()
        self._gate = WriteGate(self._path, str(self.url))


def _create(path: str) -> None:
    """Make an empty file for its owner only, unless it is there.

    A file that is there must not be opened past SQLite: closing any descriptor of a file drops
    all locks that the process holds on it, also those of other connections. Another process would
    then take itself for the last one, and remove the write-ahead log under our feet.
    https://www.sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_
    """
    with _CREATING, contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _path(url: Url) -> str:
    """Return the absolute path of the database file."""
    if url.hosts or url.username or url.password or not url.path.startswith("/"):
        raise UrlError(f"{url}: a file is written sqlite:///relative.db or sqlite:////absolute.db")
    if url.query:
        names = ", ".join(name for name, _ in url.query)
        raise UrlError(f"{url}: SQLite takes no parameters, but there is {names}")
    path = unquote(url.path[1:])
    if path in ("", ":memory:") or path.startswith("file:"):
        raise UrlError(
            f"{url}: a database in memory is not shared between connections; "
            "use memory://, or name a file: sqlite:///tasks.db"
        )
    return str(Path(path).absolute())


def _before_fork() -> None:
    for database in list(_OPEN):
        database.before_fork()


def _after_fork_in_parent() -> None:
    for database in list(_OPEN):
        database.after_fork()


def _after_fork_in_child() -> None:
    for database in list(_OPEN):
        database.after_fork_in_child()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
