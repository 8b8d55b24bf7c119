"""Noticing that another connection committed something.

SQLite has no notifications. `PRAGMA data_version`, a look at shared memory of about 4 µs, changes
with every commit of another connection, of this process or another. It is polled: every millisecond
when something was just asked for or happened, and less and less often while nothing does, so that a
wait is late by 5 % of its length, or by the longest pause.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final, final

from upshot import clock
from upshot.listening import Hint, Listener
from upshot_backends.sql.connection import Connection, Database
from upshot_backends.sql.watch import Watch

__all__ = ["SqliteListener", "SqliteWatch"]

_SHORTEST: Final = 0.001  # seconds between two looks; at this pace they take 5 % of one CPU
_LATENESS: Final = 0.05  # a look is late by this part of the time since something happened
_CONNECT: Final = 5.0  # seconds for opening the connection


@final
class SqliteWatch(Watch):
    """Polls on a connection of its own, because a connection does not see its own commits.

    Args:
        database: where to look.
        longest: seconds between two looks after a long time in which nothing happened.
    """

    def __init__(self, database: Database, longest: float) -> None:
        self._database = database
        self._longest = longest
        self._connection: Connection | None = None
        self._version: int | None = None
        self._since = clock.monotonic()
        self._interrupted = threading.Event()

    def wait(self, timeout: float) -> bool:
        deadline = clock.Deadline(timeout)
        while True:
            version = self._look()
            if version != self._version:
                self._version = version
                return True
            pause = (clock.monotonic() - self._since) * _LATENESS
            pause = deadline.left(min(self._longest, max(_SHORTEST, pause))) or 0.0
            if self._interrupted.wait(pause):
                self._interrupted.clear()
                return False
            if deadline.expired:
                return False

    def hurry(self) -> None:
        self._since = clock.monotonic()

    def interrupt(self) -> None:
        self._interrupted.set()

    def close(self) -> None:
        connection, self._connection, self._version = self._connection, None, None
        if connection is not None:
            connection.driver.close()

    def _look(self) -> int:
        with self._database.activity():
            try:
                if self._connection is None:
                    self._connection = self._database.dedicate(_CONNECT)
                cursor = self._connection.cursor
                cursor.execute("PRAGMA data_version")
                return int(cursor.fetchall()[0][0])
            except BaseException:
                self.close()
                raise


@final
class SqliteListener(Listener):
    """Hears that anything may have changed, never what."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def subscribe(self, keys: Sequence[str]) -> None:
        self._watch.hurry()

    def unsubscribe(self, keys: Sequence[str]) -> None:
        pass  # there is nothing to stop: all keys share the one sign

    def wait(self, timeout: float) -> Sequence[Hint]:
        if not self._watch.wait(timeout):
            return ()
        self._watch.hurry()
        return (Hint(None),)

    def interrupt(self) -> None:
        self._watch.interrupt()

    def close(self) -> None:
        self._watch.close()
