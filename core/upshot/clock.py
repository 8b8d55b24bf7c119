"""The only reader of clocks.

Waits are measured on the monotonic clock, so that a stepped wall clock neither shortens nor
lengthens them; timestamps in records are wall-clock seconds since the epoch, shown as aware UTC.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

__all__ = ["Deadline", "monotonic", "now", "sleep", "to_datetime"]


def now() -> float:
    """Return wall-clock seconds since 1970-01-01 UTC."""
    return time.time()


def monotonic() -> float:
    """Return seconds on a clock that never steps; only differences mean something."""
    return time.monotonic()


def sleep(seconds: float) -> None:
    """Suspend the calling thread; zero or less returns at once."""
    if seconds > 0:
        time.sleep(seconds)


def to_datetime(seconds: float | None) -> datetime | None:
    """Turn seconds since the epoch into an aware UTC datetime; None stays None."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


class Deadline:
    """A point on the monotonic clock that one public call must not pass.

    `timeout` is in seconds from now. None never expires; 0 has expired already, so whoever
    asks looks exactly once. A negative timeout is a ValueError.
    """

    __slots__ = ("_at",)

    def __init__(self, timeout: float | None) -> None:
        if timeout is not None and not timeout >= 0:  # "not >=" also catches NaN
            raise ValueError(f"timeout must be zero or more seconds, or None; got {timeout!r}")
        self._at = None if timeout is None else monotonic() + timeout

    @property
    def expired(self) -> bool:
        """True once the deadline has passed."""
        return self._at is not None and monotonic() >= self._at

    def left(self, at_most: float | None = None) -> float | None:
        """Return the seconds left, never negative, capped by `at_most`; None means for ever."""
        if self._at is None:
            return at_most
        left = max(0.0, self._at - monotonic())
        return left if at_most is None else min(left, at_most)
