"""Saying again and again what would fill a log if it were said each time."""

from __future__ import annotations

from typing import Final, final

from upshot import clock

__all__ = ["Seldom"]

_PAUSE: Final = 60.0  # seconds


@final
class Seldom:
    """Tells when it is time to say something again: at first, and then once a minute at most.

    Two threads that ask at the same moment may both be told so.
    """

    def __init__(self) -> None:
        self._next = 0.0  # on the monotonic clock, which begins at the machine's start or earlier

    def is_due(self) -> bool:
        """Return whether to say it now; if so, not again for a minute."""
        now = clock.monotonic()
        if now < self._next:
            return False
        self._next = now + _PAUSE
        return True
