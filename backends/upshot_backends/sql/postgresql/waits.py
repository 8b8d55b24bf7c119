"""Waiting for results and for messages, by notification; by looking, where none come through."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final, final

from upshot.listening import Hint, Listener
from upshot_backends.sql.polling import PollingWatch
from upshot_backends.sql.postgresql.connection import PostgresqlDatabase
from upshot_backends.sql.postgresql.messages import PostgresqlMessages
from upshot_backends.sql.postgresql.notifications import Ear
from upshot_backends.sql.watch import Watch

__all__ = ["BellWatch", "PostgresqlListener", "listen"]

_CONNECT: Final = 5.0  # seconds to open the connection and begin to listen
_SAFETY_LOOK: Final = 5.0  # seconds between two looks that no bell asked for
_LONGEST_PAUSE: Final = 0.2  # seconds between two looks for messages, where no bell is heard


@final
class PostgresqlListener(Listener):
    """The push connection of a process: hears of every result in the database's tables.

    Args:
        database: where.
        ear: on the channel for results.
        timeout: seconds to begin to listen.
    """

    def __init__(self, database: PostgresqlDatabase, ear: Ear, timeout: float) -> None:
        self._database = database
        self._ear = ear
        self._timeout = timeout
        self._keys: set[str] = set()

    def subscribe(self, keys: Sequence[str]) -> None:
        self._keys.update(keys)
        if not self._ear.listens:
            with self._database.activity():
                self._ear.listen(self._timeout)

    def unsubscribe(self, keys: Sequence[str]) -> None:
        self._keys.difference_update(keys)
        if not self._keys:
            self._ear.unlisten()

    def wait(self, timeout: float) -> Sequence[Hint]:
        with self._database.translating():
            heard = self._ear.wait(timeout)
        return [
            Hint(payload[1:], b"" if payload.startswith("-") else None)
            for payload in heard
            if payload[1:] in self._keys
        ]

    def interrupt(self) -> None:
        self._ear.interrupt()

    def close(self) -> None:
        self._ear.close()


def listen(database: PostgresqlDatabase, timeout: float) -> PostgresqlListener | None:
    """Open the push connection; None if notifications do not come through this URL."""
    with database.activity():
        database.prepare(timeout)
        ear = Ear(database, database.channel("results"))
        try:
            if ear.listen(timeout):
                return PostgresqlListener(database, ear, timeout)
        except BaseException:
            ear.close()
            raise
        ear.close()
        return None


@final
class BellWatch(Watch):
    """Hears the bells of some queues.

    Args:
        database: where.
        messages: whose queues.
        queues: which.
    """

    def __init__(
        self, database: PostgresqlDatabase, messages: PostgresqlMessages, queues: Sequence[str]
    ) -> None:
        self._database = database
        self._messages = messages
        self._bells = frozenset(messages.bells(queues))
        self._deaf = PollingWatch(_LONGEST_PAUSE)
        self._ear: Ear | None = None
        # Held by whoever waits and whoever closes, who may be one: a wait that finds the database
        # closed closes it.
        self._using = threading.RLock()

    def wait(self, timeout: float) -> bool:
        with self._using:
            if not self._database.hears:
                return self._deaf.wait(timeout)
            ear = self._ear
            if ear is None or not ear.listens:
                self._listen()
                return True
            with self._database.translating():
                heard = ear.wait(min(timeout, _SAFETY_LOOK))
            return timeout > _SAFETY_LOOK or not self._bells.isdisjoint(heard)

    def hurry(self) -> None:
        self._deaf.hurry()

    def rest(self) -> None:
        with self._using:
            if self._ear is not None:
                self._ear.unlisten()

    def interrupt(self) -> None:
        self._deaf.interrupt()
        ear = self._ear
        if ear is not None:
            ear.interrupt()

    def close(self) -> None:
        self.interrupt()
        with self._using:
            ear, self._ear = self._ear, None
            if ear is not None:
                ear.close()

    def _listen(self) -> None:
        with self._database.activity():
            self._database.prepare(_CONNECT)
            if self._ear is None:
                self._ear = Ear(self._database, self._messages.channel)
            self._ear.listen(_CONNECT)
