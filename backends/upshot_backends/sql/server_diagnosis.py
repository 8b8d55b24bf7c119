"""What all SQL servers are asked in the same way, when somebody wants to know if one is fit."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from upshot import clock
from upshot.finding import Finding, clock_finding
from upshot.url import Url
from upshot_backends.sql.connection import Cursor
from upshot_backends.sql.diagnosis import Diagnosis
from upshot_backends.sql.server import ServerDatabase

__all__ = ["ServerDiagnosis"]


class ServerDiagnosis(Diagnosis, abc.ABC):
    """The frame of a server's diagnosis.

    Class attributes to define:

        now: the statement that asks for the server's clock.
        tick: seconds in one unit of what it answers, which counts from the epoch.
    """

    now: ClassVar[str]
    tick: ClassVar[float] = 1.0

    def __init__(self, database: ServerDatabase) -> None:
        self._database = database

    def rehearsal(self, timeout: float) -> AbstractContextManager[Url | None]:
        """See `upshot.backend.Rehearsing`."""
        return self._database.rehearsal(timeout)

    def _asked(self, statement: str, timeout: float) -> Sequence[Any]:
        """Return the one row that a statement gives; the tables are not made."""

        def ask(cursor: Cursor) -> list[Any]:
            cursor.execute(statement)
            return list(cursor.fetchall())

        (row,) = self._database.look(timeout, ask)
        return row  # type: ignore[no-any-return]  # a driver's

    def _clock(self, timeout: float) -> Finding:
        """Compare the server's clock with this machine's."""
        asked = clock.now()
        (said,) = self._asked(self.now, timeout)
        doubt = (clock.now() - asked) / 2
        return clock_finding(float(said) * self.tick - asked - doubt, doubt)
