"""Hearing what others commit: one connection that listens on a channel.

PostgreSQL keeps each notification until the slowest listener has taken it. So a connection listens
only while somebody waits and takes what comes.

A proxy that lends a server's connection for one transaction loses notifications without a word:
LISTEN succeeds, on a connection that is somebody else's the next moment. This is found out when a
connection is opened, see `hears`.
"""

from __future__ import annotations

import contextlib
import secrets
import select
import socket
from typing import Final, final

import psycopg

from upshot import clock
from upshot_backends.sql.postgresql.connection import PostgresqlConnection, PostgresqlDatabase
from upshot_backends.sql.postgresql.driver import TimedConnection

__all__ = ["Ear", "hears"]

_PROBE: Final = 1.0  # seconds until a notification that was sent is taken to be lost
_UNLISTEN: Final = 1.0  # seconds to stop listening; after that the connection is closed


@final
class Ear:
    """Hears the payloads on one channel. One thread uses it; any may interrupt.

    Args:
        database: where.
        channel: its name.
    """

    def __init__(self, database: PostgresqlDatabase, channel: str) -> None:
        self._database = database
        self._channel = channel
        self._connection: PostgresqlConnection | None = None
        self._heard: list[str] = []
        self._listens = False
        self._waking, self._woken = socket.socketpair()
        self._waking.setblocking(False)
        self._woken.setblocking(False)

    @property
    def listens(self) -> bool:
        """True while nothing that is notified is missed."""
        return self._listens

    def listen(self, timeout: float) -> bool:
        """Begin to hear; False if this database's notifications do not come through.

        Raises:
            psycopg.Error: the service cannot be reached within so many seconds.
        """
        deadline = clock.Deadline(timeout)
        if not self._database.hears:
            return False
        if self._connection is not None:
            try:
                self._run("LISTEN", deadline)
            except psycopg.OperationalError:
                pass  # it was lost while nobody waited, and so did not matter
            else:
                self._listens = True
                return True
        connection = self._open(deadline)
        if connection is None:
            return False
        connection.timed.add_notify_handler(self._take)
        self._connection = connection
        self._run("LISTEN", deadline)
        self._listens = True
        return True

    def unlisten(self) -> None:
        """Stop hearing, and keep the connection for the next time; raises nothing."""
        self._heard.clear()
        if self._listens:
            self._listens = False
            with contextlib.suppress(psycopg.Error):
                self._run("UNLISTEN", clock.Deadline(_UNLISTEN))
            self._heard.clear()

    def wait(self, timeout: float) -> list[str]:
        """Return what was heard, after at most so many seconds, or nothing.

        Raises:
            psycopg.Error: the connection was lost; what was notified meanwhile is too.
        """
        connection = self._connection
        if not self._heard and connection is not None:
            poll = select.poll()
            poll.register(connection.timed.fileno(), select.POLLIN)
            poll.register(self._woken.fileno(), select.POLLIN)
            ready = dict(poll.poll(max(0.0, timeout) * 1000))
            if self._woken.fileno() in ready:
                self._forget_interrupts()
            if connection.timed.fileno() in ready:
                self._drain(connection)
        heard, self._heard = self._heard, []
        return heard

    def interrupt(self) -> None:
        """Make the running `wait`, or else the next one, return soon. Called by any thread."""
        try:
            self._waking.send(b"\0")
        except OSError:
            return  # full: a wake-up is on its way already; closed: nobody waits any more

    def close(self) -> None:
        """Give everything back; idempotent, raises nothing."""
        self._hang_up()
        self._waking.close()
        self._woken.close()

    def _open(self, deadline: clock.Deadline) -> PostgresqlConnection | None:
        """Open a connection; None if nothing that is notified would come to it."""
        connection = self._database.dedicate(deadline.left() or 0.0)
        heard = False
        try:
            heard = hears(self._database, connection, deadline.left() or 0.0)
            self._database.hears = heard
        finally:
            if not heard:
                self._database.give_back(connection)
        return connection if heard else None

    def _run(self, command: str, deadline: clock.Deadline) -> None:
        connection = self._connection
        if connection is None:
            return
        try:
            connection.keep_to(clock.monotonic() + (deadline.left() or 0.0))
            name = self._channel.replace('"', '""')
            connection.cursor.execute(f'{command} "{name}"')
        except BaseException:
            self._hang_up()
            raise

    def _drain(self, connection: PostgresqlConnection) -> None:
        """Take everything that has arrived."""
        pgconn = connection.timed.pgconn
        try:
            pgconn.consume_input()
            while notification := pgconn.notifies():
                self._heard.append(notification.extra.decode(errors="replace"))
            if connection.is_lost:
                raise psycopg.OperationalError("the server ended the connection")
        except BaseException:
            self._hang_up()
            raise

    def _take(self, notification: psycopg.Notify) -> None:
        """Take what arrives in the middle of a statement."""
        self._heard.append(notification.payload)

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        self._listens = False
        if connection is not None:
            connection.timed.remove_notify_handler(self._take)
            self._database.give_back(connection)

    def _forget_interrupts(self) -> None:
        try:
            while self._woken.recv(4096):
                pass
        except BlockingIOError:
            return


def hears(database: PostgresqlDatabase, connection: PostgresqlConnection, timeout: float) -> bool:
    """Tell whether what is notified comes to a connection that listens.

    A connection that leads straight to the server knows the number of the server's process, and so
    it does. Otherwise somebody stands between, and a second connection notifies the first: if both
    are served by one process of the server, or if nothing arrives, LISTEN is of no use.

    Raises:
        psycopg.Error: the service cannot be reached within so many seconds.
    """
    deadline = clock.Deadline(timeout)
    connection.keep_to(clock.monotonic() + timeout)
    if connection.is_direct:
        return True
    timed = connection.timed
    channel = f"upshot_probe_{secrets.token_hex(8)}"
    with timed.transaction():
        timed.execute(f'LISTEN "{channel}"'.encode())
        ((process,),) = timed.execute("SELECT pg_backend_pid()").fetchall()
    heard = _notify(database, channel, deadline) != process and _arrives(
        timed, deadline.left(_PROBE) or 0.0
    )
    timed.execute(f'UNLISTEN "{channel}"'.encode())
    return heard


def _arrives(timed: TimedConnection, seconds: float) -> bool:
    """Tell whether a notification arrives by itself, with nothing asked of the server."""
    poll = select.poll()
    poll.register(timed.fileno(), select.POLLIN)
    until = clock.Deadline(seconds)
    while poll.poll((until.left() or 0.0) * 1000):
        timed.pgconn.consume_input()
        if timed.pgconn.notifies():
            return True
    return False


def _notify(database: PostgresqlDatabase, channel: str, deadline: clock.Deadline) -> int:
    """Notify a channel through a connection of its own; return the server process it went to."""
    other = database.dedicate(deadline.left() or 0.0)
    try:
        with other.timed.transaction():
            cursor = other.timed.execute("SELECT pg_backend_pid(), pg_notify(%s, '')", [channel])
            ((process, _),) = cursor.fetchall()
        return int(process)
    finally:
        database.give_back(other)
