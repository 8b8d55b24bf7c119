"""Which names of tasks and queues are labels: each value of a label is a series of its own."""

from __future__ import annotations

from collections.abc import Container
from typing import Final, final

__all__ = ["UNKNOWN", "Names"]

UNKNOWN: Final = "unknown"
"""Stands for a name that anybody may have made up."""

_MOST: Final = 200
"""Names beyond the registered ones: more than an app calls by name, and few for Prometheus."""


@final
class Names:
    """Names that may be labels: those that are registered here, and a few others.

    Args:
        registered: what is known here.
    """

    def __init__(self, registered: Container[str] = ()) -> None:
        self._registered = registered
        self._others: set[str] = set()

    def registered(self, name: str) -> str:
        """Return a name that came from elsewhere, if it is registered here."""
        return name if name in self._registered else UNKNOWN

    def sent(self, name: str) -> str:
        """Return a name that this process chose: one of the first 200, if it is not registered."""
        if name in self._registered or name in self._others:
            return name
        if len(self._others) >= _MOST:
            return UNKNOWN
        self._others.add(name)
        return name
