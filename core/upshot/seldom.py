"""Saying again and again what would fill a log if it were said each time."""

from __future__ import annotations

from typing import final

from upshot import clock

__all__ = ["Seldom"]


@final
class Seldom:
    """Tells when it is time to say something again: at first, and then once in so many seconds.

    Two threads that ask at the same moment may both be told so.

    Args:
        seconds: the shortest time between two moments to say it.
    """

    def __init__(self, seconds: float = 60.0) -> None:
        self._seconds = seconds
        self._next = 0.0  # on the monotonic clock, which begins at the machine's start or earlier

    def is_due(self) -> bool:
        """Return whether to say it now; if so, not again before the time is over."""
        now = clock.monotonic()
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True
