"""The only reader of clocks.

Waits are measured on the monotonic clock, so that a stepped wall clock neither shortens nor
lengthens them; timestamps in records are wall-clock seconds since the epoch, shown as aware UTC.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

__all__ = [
    "EARLIEST",
    "LATEST",
    "Deadline",
    "is_moment",
    "monotonic",
    "now",
    "read_from",
    "sleep",
    "to_datetime",
]

EARLIEST: Final = -62_135_596_800
"""The first moment, in seconds since the epoch: the beginning of 0001-01-01 UTC."""

LATEST: Final = 253_402_214_400
"""The last one: the end of 9999-12-30 UTC, so that no time zone takes it out of `datetime`."""

# As they are now: a task that replaces them, to freeze time for itself, must not freeze its worker.
_time, _monotonic, _sleep = time.time, time.monotonic, time.sleep


def now() -> float:
    """Return wall-clock seconds since 1970-01-01 UTC."""
    return _time()


def monotonic() -> float:
    """Return seconds on a clock that never steps; only differences mean something."""
    return _monotonic()


def sleep(seconds: float) -> None:
    """Suspend the calling thread; zero or less returns at once."""
    if seconds > 0:
        _sleep(seconds)


def read_from(
    time_of_day: Callable[[], float], steady: Callable[[], float]
) -> tuple[Callable[[], float], Callable[[], float]]:
    """Read these two clocks from now on, in the whole process; for `upshot.testing`.

    Args:
        time_of_day: what `now` returns.
        steady: what `monotonic` returns.

    Returns:
        The two that were read until now.
    """
    global _time, _monotonic
    before = _time, _monotonic
    _time, _monotonic = time_of_day, steady
    return before


def is_moment(seconds: float) -> bool:
    """Tell whether seconds since the epoch are a moment that `to_datetime` has a form for."""
    return EARLIEST <= seconds <= LATEST  # false for NaN


def to_datetime(seconds: float | None) -> datetime | None:
    """Turn seconds since the epoch, a moment, into an aware UTC datetime; None stays None."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


class Deadline:
    """A point on the monotonic clock that one public call must not pass.

    `timeout` is in seconds from now. None never expires, and neither does infinity or whatever is
    longer than a thread can wait; 0 has expired already, so whoever asks looks exactly once. A
    negative timeout is a ValueError.
    """

    __slots__ = ("_at",)

    _at: float | None

    def __init__(self, timeout: float | None) -> None:
        if timeout is not None and not timeout >= 0:  # "not >=" also catches NaN
            raise ValueError(f"timeout must be zero or more seconds, or None; got {timeout!r}")
        if timeout is None or timeout >= threading.TIMEOUT_MAX:
            self._at = None
        else:
            self._at = monotonic() + timeout

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
