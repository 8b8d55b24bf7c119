"""Noticing what others commit where nobody tells: by looking again and again.

Here a look is a query, so pauses grow with the time in which nothing happened: a wait is late by
5 % of its length, or by the longest pause.
"""

from __future__ import annotations

import threading
from typing import Final, final

from upshot import clock
from upshot_backends.sql.watch import Watch

__all__ = ["PollingWatch"]

_SHORTEST: Final = 0.002  # seconds between two looks; each takes a server a tenth of that
_LATENESS: Final = 0.05  # a look is late by this part of the time since something happened


@final
class PollingWatch(Watch):
    """Says after each pause that there may have been a commit.

    Args:
        longest: seconds between two looks after a long time in which nothing happened.
    """

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._since = clock.monotonic()
        self._interrupted = threading.Event()

    def wait(self, timeout: float) -> bool:
        pause = (clock.monotonic() - self._since) * _LATENESS
        pause = min(timeout, self._longest, max(_SHORTEST, pause))
        if self._interrupted.wait(pause):
            self._interrupted.clear()
            return False
        return True

    def hurry(self) -> None:
        self._since = clock.monotonic()

    def interrupt(self) -> None:
        self._interrupted.set()

    def close(self) -> None:
        pass  # it has nothing open
