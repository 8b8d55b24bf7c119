"""A server's clock, as a client knows it that asks it only now and then."""

from __future__ import annotations

from typing import Final, final

from upshot import clock

__all__ = ["ClockReading"]

_TRUSTED: Final = 60.0  # seconds; two clocks of computers drift apart by 0.01 s in them, at worst
_ROUGH: Final = 0.5  # seconds that an answer took, of which half may be an error that lasts; then
_ROUGHLY_TRUSTED: Final = 1.0  # seconds until a better one is asked for: a server may be slow once
_ASLEEP: Final = 1.0  # seconds by which the clocks of this machine may disagree on what has passed


@final
class ClockReading:
    """What a server's clock said once, and so what it says now; usable from any thread.

    It is off by at most half of the time that the answer took. What has passed since is measured
    on this machine's monotonic clock, so its wall clock may say what it likes.

    Args:
        said: seconds since the epoch, the server's answer, which has just come.
        asked: when it was asked for, on the monotonic clock.
    """

    def __init__(self, said: float, asked: float) -> None:
        self._read_at = clock.monotonic()
        self._ahead = said - (asked + self._read_at) / 2
        self._wall_ahead = clock.now() - self._read_at
        self._trusted = _TRUSTED if self._read_at - asked < _ROUGH else _ROUGHLY_TRUSTED

    def now(self) -> float:
        """Return the server's present moment, in seconds since the epoch."""
        return clock.monotonic() + self._ahead

    @property
    def is_doubtful(self) -> bool:
        """True once the server should be asked again.

        The monotonic clock may stand still while the machine is suspended, the wall clock does not.
        """
        read_ago = clock.monotonic() - self._read_at
        wall_moved = clock.now() - clock.monotonic() - self._wall_ahead
        return read_ago >= self._trusted or abs(wall_moved) > _ASLEEP
