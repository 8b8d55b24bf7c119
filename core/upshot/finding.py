"""What a look at a service or an app has found, in plain words.

A service's own knowledge, in its folder, and what is asked of every service, in `diagnosis`, say
what they find in this one form.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["Advice", "Finding", "Level", "advice_for", "clock_finding", "size"]

Advice = Sequence[tuple[Sequence[str], str]]
"""What to change, by words in lower case that a driver or a service says; the first counts."""

_HARMLESS: Final = 0.1  # seconds by which the clocks of hosts that NTP keeps may differ
_TOLERABLE: Final = 1.0  # seconds, from which on somebody will notice


class Level(enum.StrEnum):
    """How bad it is; in this order."""

    OK = "ok"
    """Looked at, and in order."""
    NOTE = "note"
    """Good to know; nothing is wrong."""
    WARNING = "warning"
    """It works now. Something may be lost, late or refused some day."""
    PROBLEM = "problem"
    """Something does not work."""

    @property
    def gravity(self) -> int:
        """Larger is worse, from 0."""
        return list(Level).index(self)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: how bad it is.
        what: what was found, in a sentence without its full stop.
        why: what follows from it; "" if that is plain.
        change: what to do about it; "" if there is nothing to do.
        capability: the field of `Capabilities` or `BrokerCapabilities` that it is about, which
            then needs no further words; "" for none.
    """

    level: Level
    what: str
    why: str = ""
    change: str = ""
    capability: str = ""


def clock_finding(ahead: float, doubt: float) -> Finding:
    """Tell how a service's clock differs from this machine's.

    Args:
        ahead: seconds by which the service's is ahead; negative if it is behind.
        doubt: seconds by which that may be wrong, such as half a round trip; a difference that is
            no larger is none.
    """
    sure = max(0.0, abs(ahead) - doubt)
    if sure <= _HARMLESS:
        return Finding(Level.OK, "its clock agrees with this machine's")
    return Finding(
        Level.WARNING if sure >= _TOLERABLE else Level.NOTE,
        f"its clock is {abs(ahead):.3g} seconds {'ahead of' if ahead > 0 else 'behind'} this "
        "machine's",
        "what is sent with an `eta` or a countdown comes too early or too late by as much, and "
        "times in records do not compare",
        "let NTP keep the clocks of both",
    )


def advice_for(said: str, advice: Advice) -> str:
    """Return what is to be changed where this was said; "" if that is unknown."""
    lower = said.lower()
    return next((change for words, change in advice if any(word in lower for word in words)), "")


def size(number: int) -> str:
    """Return a number of bytes for people, rounded down."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if number >= factor:
            return f"{number // factor} {unit}"
    return f"{number} bytes"
