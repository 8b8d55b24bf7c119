"""How a backend tells the wait hub of changes, where its service can push.

Notifications are hints: whatever they say or leave out, the hub looks at what it awaits once a
second.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Hint", "Listener"]


class Hint(NamedTuple):
    """What a listener heard.

    Attributes:
        key: whose record changed; None if anything may have changed.
        body: the encoded record if it came along, b"" if the record was deleted, None if the
            hub has to read it.
    """

    key: str | None
    body: bytes | None = None


class Listener(abc.ABC):
    """One push connection of a backend. Every method but `interrupt` runs on the hub's thread.

    Where `lends` is true, a thread that waits alone calls them itself, while the hub's rests.

    Any driver error raised here is a gap: the hub closes the listener, opens another, subscribes
    anew to everything awaited and reads it all once.
    """

    lends: bool = False
    """Whether any thread may use it, one at a time; then it has `attend`."""

    @abc.abstractmethod
    def subscribe(self, keys: Sequence[str]) -> None:
        """Begin to hear of `keys`. When this returns, no later change may be missed."""

    def attend(self, key: str, timeout: float | None) -> None:
        """Begin to hear of one key, as `subscribe` does, in at most `timeout` seconds.

        Args:
            key: whose record is awaited.
            timeout: of whoever waits; None for as long as `subscribe` may take.
        """
        raise NotImplementedError

    @abc.abstractmethod
    def unsubscribe(self, keys: Sequence[str]) -> None:
        """Stop hearing of `keys`; unknown ones are ignored."""

    @abc.abstractmethod
    def wait(self, timeout: float) -> Sequence[Hint]:
        """Block for at most `timeout` seconds and return what was heard, possibly nothing."""

    @abc.abstractmethod
    def interrupt(self) -> None:
        """Make the running `wait`, or else the next one, return soon. Called by any thread."""

    @abc.abstractmethod
    def close(self) -> None:
        """Give the connection back; idempotent, raises nothing."""
