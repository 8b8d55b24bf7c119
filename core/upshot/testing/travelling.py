"""A clock that a test moves on."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, final

from upshot import clock
from upshot.errors import ConfigError

__all__ = ["Clock"]

_FURTHEST: Final = 3e9  # seconds, nearly a century: no moment may lie where `datetime` has no form


@final
class Clock:
    """Inside its `with` block, upshot's clocks go on as ever, and further where the test says so.

    What waits for a moment finds that it has come: countdowns and etas, pauses before a repetition,
    the expiry of tasks, records and keys, hard time limits, and timeouts of whoever waits in
    another thread. Both clocks move together, and never back; leaving the block puts those that
    were read before in their place again. The whole process reads them, so of two such blocks one
    has to be inside the other.

    A worker that runs beside the test looks at the clock once a second at least; `drain` and
    `run_due` look at once. Soft time limits are timers of the machine's, and code that asks Python
    itself for the time sees nothing of this either.
    """

    def __init__(self) -> None:
        self._ahead = 0.0
        self._before: tuple[Callable[[], float], Callable[[], float]] | None = None

    def __enter__(self) -> Clock:
        if self._before is not None:
            raise ConfigError("this clock is in use already")
        now, monotonic = clock.read_from(self._now, self._monotonic)
        self._before = now, monotonic
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is None:
            return
        read = clock.read_from(*self._before)
        if read != (self._now, self._monotonic):
            clock.read_from(*read)
            raise ConfigError("a clock that was entered after this one is in use: leave it first")
        self._before = None
        self._ahead = 0.0

    @property
    def now(self) -> datetime:
        """What time it is for upshot, aware UTC."""
        return datetime.fromtimestamp(clock.now(), UTC)

    def travel(self, seconds: float) -> None:
        """Move on by so many seconds.

        Raises:
            ConfigError: the seconds are negative or more than a century, or the clock is not in
                use.
        """
        if self._before is None:
            raise ConfigError("this clock is not in use: travel inside `with clock:`")
        if not 0 <= seconds <= _FURTHEST - self._ahead or math.isnan(seconds):
            raise ConfigError(
                f"a clock travels from 0 to {_FURTHEST:.0e} seconds ahead; not {seconds!r} seconds"
            )
        self._ahead += seconds

    def travel_to(self, moment: datetime) -> None:
        """Move on to a moment, an aware datetime that is not over.

        Raises:
            ConfigError: it has no zone, is over or more than a century away; or as for `travel`.
        """
        if moment.tzinfo is None:
            raise ConfigError(f"a moment needs a zone: datetime(…, tzinfo=UTC), not {moment!r}")
        self.travel(moment.timestamp() - clock.now())

    def _now(self) -> float:
        assert self._before is not None
        return self._before[0]() + self._ahead

    def _monotonic(self) -> float:
        assert self._before is not None
        return self._before[1]() + self._ahead
