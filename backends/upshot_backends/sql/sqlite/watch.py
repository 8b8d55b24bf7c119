"""Noticing that another connection committed something.

SQLite has no notifications. `PRAGMA data_version`, a look at shared memory of about 4 µs, changes
with every commit of another connection, of this process or another. So it is looked at again and
again: when the kernel tells of a write to the log, which comes before every commit, then a few
times more until the commit is to be seen; and every quarter of a second, as notices are only hints.

Where the kernel does not tell, looks follow each other every millisecond when something was just
asked for or happened, and less and less often while nothing does, so that a wait is late by 5 % of
its length, or by the longest pause.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final, final

from upshot import clock
from upshot.listening import Hint, Listener
from upshot_backends.sql.connection import Connection
from upshot_backends.sql.sqlite.connection import SqliteDatabase
from upshot_backends.sql.sqlite.notices import WriteNotices
from upshot_backends.sql.watch import Watch

__all__ = ["SqliteListener", "SqliteWatch"]

_SHORTEST: Final = 0.001  # seconds between two looks; at this pace they take 5 % of one CPU
_LATENESS: Final = 0.05  # a look is late by this part of the time since something happened
_CONNECT: Final = 5.0  # seconds for opening the connection

# Where the kernel tells:
_COMMIT: Final = 0.0002  # seconds until the second look, if the first one came before the commit
_NOTICED: Final = 0.25  # seconds between two looks that no notice asked for
_DEAF: Final = 1.0  # seconds after the last notice in which a commit shows that notices get lost


@final
class SqliteWatch(Watch):
    """Looks on a connection of its own, because a connection does not see its own commits.

    Args:
        database: where to look.
        longest: seconds between two looks after a long time in which nothing happened, where the
            kernel does not tell.
    """

    def __init__(self, database: SqliteDatabase, longest: float) -> None:
        self._database = database
        self._longest = longest
        self._connection: Connection | None = None
        self._version: int | None = None
        self._since = clock.monotonic()
        self._interrupted = threading.Event()
        self._notices: WriteNotices | None = None
        self._noticed_at = self._looked_at = 0.0

    def wait(self, timeout: float) -> bool:
        deadline = clock.Deadline(timeout)
        while True:
            version = self._look()
            if version != self._version:
                self._version = version
                self._distrust()
                return True
            if not self._interrupted.is_set():  # a notice may have been read along with its sign
                rest = self._rest if self._notices is None else self._listen
                rest(deadline)
            if self._interrupted.is_set():
                self._interrupted.clear()
                return False
            if deadline.expired:
                return False

    def hurry(self) -> None:
        self._since = clock.monotonic()

    def interrupt(self) -> None:
        self._interrupted.set()
        notices = self._notices
        if notices is not None:
            notices.interrupt()

    def close(self) -> None:
        notices, self._notices = self._notices, None
        if notices is not None:
            notices.interrupt()  # whoever listens looks again, and lets go of it
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
                version = int(cursor.fetchall()[0][0])
                self._looked_at = clock.monotonic()
                if self._version is None:  # the log is there since this connection has read
                    self._notices = self._database.notices()
                    self._noticed_at = self._looked_at
                return version
            except BaseException:
                self.close()
                raise

    def _rest(self, deadline: clock.Deadline) -> None:
        """Wait for the next look, where the kernel does not tell."""
        pause = (clock.monotonic() - self._since) * _LATENESS
        self._interrupted.wait(deadline.left(min(self._longest, max(_SHORTEST, pause))))

    def _listen(self, deadline: clock.Deadline) -> None:
        """Wait for the next look: a notice, or the time since the last one once more."""
        pause = max(_COMMIT, clock.monotonic() - self._noticed_at)
        if pause >= _SHORTEST:
            notices = self._notices
            if notices is None or not notices.wait(deadline.left(min(_NOTICED, pause)) or 0.0):
                return
            self._noticed_at = clock.monotonic()
            pause = self._looked_at + _SHORTEST - self._noticed_at  # others may commit all the time
        if pause > 0:
            self._interrupted.wait(deadline.left(pause))

    def _distrust(self) -> None:
        """Listen no longer if this commit was not told of."""
        notices = self._notices
        if notices is None:
            return
        if notices.wait(0.0):
            self._noticed_at = clock.monotonic()
        elif clock.monotonic() - self._noticed_at > _DEAF:
            self._notices = None


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
