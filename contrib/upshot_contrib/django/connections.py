"""Django's database connections for upshot alone, beside those of the program's threads.

What a program stores within `atomic()` is undone with it. So records travel on connections of their
own, made by Django from the same settings, as many as there are calls at once. They are handed from
thread to thread, each to one at a time, outside any transaction in between.

    CONN_MAX_AGE  as in Django: 0 closes them at the end of a request, and a program without
                  requests keeps them; older ones are closed when a call gives them back.
    pool          is left out: a thread that holds one of the pool's connections and waits for
                  another would wait for ever.
    fork          before one, every idle connection is closed, once running calls are over.
    NAME          may be that of a test's database: before a database is made or removed, every idle
                  connection is closed, as PostgreSQL removes none that somebody is connected to.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Generator
from typing import Final, TypeVar, final

from django.core import signals
from django.db import connections
from django.db.backends.base.base import NO_DB_ALIAS, BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from upshot import forking, retrying
from upshot.clock import Deadline
from upshot.errors import ServiceClosedError, ServiceRejectedError, ServiceUnavailableError
from upshot.retrying import DriverErrors
from upshot.url import Url
from upshot_contrib.django import failures
from upshot_contrib.django.connection import Connection, Place, connect
from upshot_contrib.django.statements import Cursor
from upshot_contrib.django.watchdog import Watchdog

__all__ = ["Connections"]

T = TypeVar("T")

_MAX_IDLE: Final = 8  # connections kept open for the next call; a burst opens more, and closes them
_FORK_PATIENCE: Final = 1.0  # seconds that a fork waits for running calls to end
_OPEN: Final[weakref.WeakSet[Connections]] = weakref.WeakSet()


@final
class Connections:
    """The connections of one backend in one process; usable from any thread.

    Args:
        place: the database.
        url: what it is called in messages.
        learn: told of each connection that is opened.
    """

    def __init__(self, place: Place, url: Url, learn: Callable[[Connection], object]) -> None:
        self._place = place
        self._url = url
        self._learn = learn
        self._watchdog = Watchdog()
        self._lock = threading.RLock()  # a signal's handler may come while this thread holds it
        self._changed = threading.Condition(self._lock)
        self._writing = threading.Lock()
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._in_use = 0
        self._held = False
        self._closed = False
        signals.request_started.connect(self._request_ended)
        signals.request_finished.connect(self._request_ended)
        connection_created.connect(self._connected)
        _OPEN.add(self)

    def run(
        self,
        timeout: float,
        work: Callable[[Cursor], T],
        *,
        writes: bool = False,
        begin: str = "",
    ) -> T:
        """Return what `work` returns, whose statements are each a transaction of its own.

        Args:
            timeout: seconds.
            work: is given a cursor.
            writes: whether a statement changes something.
            begin: the statement that begins one transaction around all of `work`; "" for none.

        Raises:
            ServiceUnavailableError: the database cannot be reached, is slow, or others held locks.
            ServiceRejectedError: it refused for good.
            ServiceClosedError: the backend was closed.
        """
        deadline = Deadline(timeout)
        connection: Connection | None = None
        with self._activity():
            try:
                connection = self._take(deadline)
                with (
                    self._turn(connection, deadline, writes=writes),
                    self._watchdog.over(connection.descriptor, deadline) as watch,
                ):
                    try:
                        found = self._work(connection, deadline, work, begin)
                    except Exception as exc:
                        if watch.bit:
                            raise self._slow() from exc
                        raise
                unbroken, connection = connection, None
                self._put_back(unbroken)
                return found
            except Exception as exc:
                translated = self._translated(exc)
                if translated is exc:
                    raise
                raise translated from exc
            finally:
                if connection is not None:
                    self._discard(connection)
                    self._close_idle()  # what ended this one may have ended the others

    def close(self) -> None:
        """Let no call begin, and close everything, after the last running call. Idempotent."""
        with self._lock:
            self._closed = True
            self._changed.notify_all()
            is_last = not self._in_use
        signals.request_started.disconnect(self._request_ended)
        signals.request_finished.disconnect(self._request_ended)
        connection_created.disconnect(self._connected)
        if is_last:
            self._release()

    def _work(
        self,
        connection: Connection,
        deadline: Deadline,
        work: Callable[[Cursor], T],
        begin: str,
    ) -> T:
        connection.be_patient(deadline)
        if not begin:
            return work(connection.cursor)
        connection.cursor.execute(begin)
        found = work(connection.cursor)
        connection.cursor.execute("COMMIT")
        return found

    @contextlib.contextmanager
    def _turn(self, connection: Connection, deadline: Deadline, *, writes: bool) -> Generator[None]:
        """Let one thread after the other write to SQLite.

        It has one writer at a time, and those who wait for it sleep for longer and longer, so that
        an unlucky one would starve.
        """
        if not writes or connection.wrapper.vendor != "sqlite":
            yield
            return
        if not self._writing.acquire(timeout=deadline.left() or 0.0):
            raise ServiceUnavailableError(f"{self._url} is busy: other threads write all the time")
        try:
            yield
        finally:
            self._writing.release()

    @contextlib.contextmanager
    def _activity(self) -> Generator[None]:
        """Count as in use, so that no fork happens meanwhile.

        Raises:
            ServiceClosedError: the backend was closed.
        """
        counted = False
        try:  # around all of it: Ctrl-C may come at any point
            with self._lock:
                while self._held:
                    self._changed.wait()
                if self._closed:
                    raise ServiceClosedError(f"{self._url} was closed by this process")
                self._in_use += 1
                counted = True
            yield
        finally:
            with self._lock:
                self._in_use -= counted
                if self._held and not self._in_use:
                    self._changed.notify_all()
                is_last = counted and self._closed and not self._in_use
            if is_last:
                self._release()

    def _take(self, deadline: Deadline) -> Connection:
        try:
            return self._idle.pop()  # atomic, and the last one used is the warmest
        except IndexError:
            connection = connect(self._place, deadline)
        if connection is None:
            raise self._slow()
        with self._lock:
            self._open.add(connection)
        self._learn(connection)
        return connection

    def _put_back(self, connection: Connection) -> None:
        if connection.is_old(request_ended=False):
            self._discard(connection)
            return
        self._idle.append(connection)
        if len(self._idle) > _MAX_IDLE:
            self._close_idle(keep=_MAX_IDLE)

    def _discard(self, connection: Connection) -> None:
        connection.close()
        with self._lock:
            self._open.discard(connection)

    def _close_idle(self, keep: int = 0) -> None:
        while len(self._idle) > keep:
            try:
                connection = self._idle.pop(0)
            except IndexError:  # another thread took it
                return
            self._discard(connection)

    def _release(self) -> None:
        self._close_idle()
        self._watchdog.close()

    def _request_ended(self, **_signal: object) -> None:
        """Close what is as old as Django's own connections may become."""
        for _ in range(len(self._idle)):
            try:
                connection = self._idle.pop(0)
            except IndexError:
                return
            if connection.is_old(request_ended=True):
                self._discard(connection)
            else:
                self._idle.append(connection)

    def _connected(self, connection: BaseDatabaseWrapper, **_signal: object) -> None:
        """Close what is idle if somebody connects to a server, but to no database of it.

        So does Django before it makes or removes one, which it does for tests.
        """
        if connection.alias == NO_DB_ALIAS:
            self._close_idle()

    def _slow(self) -> ServiceUnavailableError:
        return ServiceUnavailableError(f"{self._url} did not answer in time")

    def _translated(self, exc: Exception) -> Exception:
        """Return one of upshot's errors for a database's; anything else as it is."""
        wrapper = connections[self._place.alias]
        if failures.is_table_missing(exc):
            return ServiceRejectedError(
                f"the database {self._place.alias!r} has no table for results: run "
                f"python manage.py migrate upshot --database={self._place.alias}"
            )
        if failures.is_busy(exc) and wrapper.in_atomic_block:
            return ServiceUnavailableError(
                f"{self._url}: SQLite has one writer at a time, and that may be the transaction "
                "which this thread is in. Send tasks with transaction.on_commit(…), or after the "
                "block, or keep results in another database with django-db://?using=ALIAS"
            )
        transient = failures.is_transient(wrapper.vendor, exc)
        if transient is None:
            return exc
        kinds = (type(exc),)
        errors = DriverErrors(transient=kinds) if transient else DriverErrors(permanent=kinds)
        return retrying.translate(exc, errors, self._url) or exc

    # -- forks ------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Let no call begin, wait for those that run, and close what is idle."""
        with self._changed:
            self._held = True
            self._changed.wait_for(lambda: not self._in_use, timeout=_FORK_PATIENCE)
        self._close_idle()

    def after_fork(self) -> None:
        """Let calls begin again, in the parent."""
        with self._changed:
            self._held = False
            self._changed.notify_all()

    def after_fork_in_child(self) -> None:
        """Abandon what could not be closed; the child's backend has connections of its own."""
        forking.abandon(self)


def _before_fork() -> None:
    for each in list(_OPEN):
        each.before_fork()


def _after_fork_in_parent() -> None:
    for each in list(_OPEN):
        each.after_fork()


def _after_fork_in_child() -> None:
    for each in list(_OPEN):
        each.after_fork_in_child()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
