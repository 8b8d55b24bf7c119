"""One of Django's database connections, for upshot alone: how it is made, and what it can be told.

Django makes it from the project's settings. It belongs to no thread.
"""

from __future__ import annotations

import contextlib
import copy
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, Final, final

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper

from upshot import clock
from upshot.clock import Deadline

__all__ = ["Connection", "Place", "connect"]

_CONNECT_TIMEOUT: Final = 10  # seconds, if the settings have none; whoever waits may leave earlier

_BINARY: Final = 1  # libpq's number for rows that are not text


@final
class Place:
    """One of Django's databases, perhaps at another address than in the settings.

    Args:
        alias: its name in DATABASES.
        host, port: in place of HOST and PORT; None for those of the settings.
    """

    def __init__(self, alias: str, host: str | None = None, port: int | None = None) -> None:
        self.alias = alias
        self._host = host
        self._port = port

    def wrapper(self) -> BaseDatabaseWrapper:
        """Return a new connection that is not open yet, of no thread."""
        found: BaseDatabaseWrapper = connections.create_connection(self.alias)
        settings: dict[str, Any] = copy.deepcopy(found.settings_dict)
        options = settings["OPTIONS"]
        options.pop("pool", None)
        options.pop("isolation_level", None)  # the statements are right where it is the usual one
        if found.vendor != "sqlite":
            options.setdefault("connect_timeout", _CONNECT_TIMEOUT)
        if found.vendor == "postgresql":
            options["server_side_binding"] = True  # else a body travels at twice its length
        settings["AUTOCOMMIT"] = True
        if self._host is not None:
            settings["HOST"] = self._host
            settings["PORT"] = self._port or settings["PORT"]
        found.settings_dict = settings
        found.inc_thread_sharing()
        return found


@final
class Connection:
    """One open connection, and its only cursor.

    The cursor stays: making one is forbidden where an event loop runs, and using it is not. It is
    one that logs nothing: with DEBUG, Django would keep every body in memory.

    Attributes:
        largest_packet: bytes of a statement that the server takes at most; None for no such limit.
    """

    def __init__(self, wrapper: BaseDatabaseWrapper) -> None:
        wrapper.ensure_connection()  # unlike `connect`, it raises Django's own exceptions
        self.wrapper = wrapper
        self.driver: Any = wrapper.connection
        cursor: Any = wrapper.create_cursor()
        if hasattr(
            cursor, "format"
        ):  # psycopg, not psycopg2: the same for bodies on their way back
            cursor.format = _BINARY
        self.cursor: Any = CursorWrapper(cursor, wrapper)
        self.patience = -1
        self.largest_packet = _largest_packet(wrapper.vendor, self.cursor)
        age: float | None = wrapper.settings_dict["CONN_MAX_AGE"]
        self._old_at = None if age is None else clock.monotonic() + age
        self._kept_for_request = age == 0

    @property
    def descriptor(self) -> int | None:
        """The number of its socket; None if it has none, or does not tell."""
        if self.wrapper.vendor == "sqlite":
            return None
        tell = getattr(self.driver, "fileno", None)
        if tell is None:  # PyMySQL
            tell = getattr(getattr(self.driver, "_sock", None), "fileno", None)
        return None if tell is None else int(tell())

    def is_old(self, *, request_ended: bool) -> bool:
        """Tell whether CONN_MAX_AGE has passed."""
        if self._kept_for_request and not request_ended:
            return False
        return self._old_at is not None and clock.monotonic() >= self._old_at

    def be_patient(self, deadline: Deadline) -> None:
        """Let SQLite wait for locks until `deadline`; elsewhere the watchdog sees to it."""
        if self.wrapper.vendor == "sqlite":
            patience = round((deadline.left(3600.0) or 0.0) * 10 + 0.5) * 100  # in steps of 0.1 s
            if patience != self.patience:
                self.cursor.execute(f"PRAGMA busy_timeout = {patience}")
                self.cursor.fetchall()
                self.patience = patience

    def close(self) -> None:
        """Undo an open transaction, and close the connection, whatever its state is.

        Whatever still holds the cursor, as an exception's traceback does, keeps SQLite from closing
        it, and so its transaction open and everybody else out. So what is open is ended first.
        """
        with contextlib.suppress(Exception):  # the driver's: it is lost already
            if self.wrapper.vendor == "sqlite":
                self.driver.rollback()
        with contextlib.suppress(Exception):
            self.driver.close()
        self.wrapper.connection = None


def connect(place: Place, deadline: Deadline) -> Connection | None:
    """Open a connection, on a thread of its own; None if that takes longer than `deadline`.

    Drivers know deadlines in whole seconds, if at all. Nor does Django open a connection where an
    event loop runs.
    """
    opening: Future[Connection] = Future()
    threading.Thread(
        target=_settle, args=(opening, place), name="upshot-django-connect", daemon=True
    ).start()
    try:
        return opening.result(deadline.left())
    except BaseException as exc:
        is_late = isinstance(exc, FutureTimeoutError) and not opening.done()
        opening.add_done_callback(_close_late)
        if is_late:
            return None
        raise


def _largest_packet(vendor: str, cursor: Any) -> int | None:
    if vendor != "mysql":
        return None
    cursor.execute("SELECT @@max_allowed_packet")
    ((found,),) = cursor.fetchall()
    return int(found)


def _settle(opening: Future[Connection], place: Place) -> None:
    try:
        connection = Connection(place.wrapper())
    except BaseException as exc:  # whatever it is, it is for whoever waits
        opening.set_exception(exc)
    else:
        opening.set_result(connection)


def _close_late(opening: Future[Connection]) -> None:
    """Close what was opened too late for whoever waited."""
    if opening.exception() is None:
        opening.result().close()
