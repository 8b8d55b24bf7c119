"""Three time knobs instead of sleeps: how long something may take, how long nothing may happen,
and how often to look. They are measured against the service and the machine at hand.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from upshot import clock

__all__ = ["Timing", "calibrate"]

T = TypeVar("T")

_LEAST_JITTER: Final = 0.05
"""Seconds; the contract's own lower bound (a busy machine pauses a process for that long)."""

_SAMPLES: Final = 20


@dataclass(frozen=True, slots=True)
class Timing:
    """The knobs, all in seconds.

    Attributes:
        round_trip: the median time of one request.
        jitter: by how much this machine may be late.
        within: what should happen has this long to do so.
        quiet: what must not happen is watched for this long.
        poll: the pause between two looks.
    """

    round_trip: float
    jitter: float
    within: float
    quiet: float
    poll: float

    def eventually(self, look: Callable[[], T], *, within: float | None = None) -> T:
        """Look until what is seen is true; return what was seen last.

        Args:
            look: what to call.
            within: how long to look, in seconds; None for the knob of that name.
        """
        deadline = clock.Deadline(self.within if within is None else within)
        while not (seen := look()) and not deadline.expired:
            clock.sleep(self.poll)
        return seen

    def throughout(self, look: Callable[[], T]) -> T:
        """Look for `quiet` seconds, as long as what is seen is true; return what was seen last."""
        deadline = clock.Deadline(self.quiet)
        while (seen := look()) and not deadline.expired:
            clock.sleep(self.poll)
        return seen


def calibrate(request: Callable[[], object], *, visibility: float, scale: float = 1.0) -> Timing:
    """Measure the service, by `request`, and the machine.

    Args:
        request: one round trip to the service.
        visibility: seconds after which the backend promises that everybody sees a write.
        scale: by which factor to take the machine for slower than it shows itself now.
    """
    request()  # connects
    round_trip = statistics.median(_duration(request) for _ in range(_SAMPLES))
    late = max(_duration(lambda: clock.sleep(0.001)) - 0.001 for _ in range(_SAMPLES))
    jitter = scale * max(_LEAST_JITTER, 4 * late)
    return Timing(
        round_trip=round_trip,
        jitter=jitter,
        within=5.0 + visibility + 20 * (round_trip + jitter),
        quiet=2 * jitter + 4 * round_trip,
        poll=max(0.002, round_trip),
    )


def _duration(action: Callable[[], object]) -> float:
    began = clock.monotonic()
    action()
    return clock.monotonic() - began
