"""How the parts of a program that wait learn that something was committed."""

from __future__ import annotations

import abc

__all__ = ["Watch"]


class Watch(abc.ABC):
    """Tells that something was committed. One thread waits at a time; any may interrupt."""

    @abc.abstractmethod
    def wait(self, timeout: float) -> bool:
        """Block for at most `timeout` seconds; True if there may have been a commit.

        Whatever was committed since the last `wait` that answered True makes the next one answer
        True at once, and so does the first one ever: look, wait, look again misses nothing.
        """

    @abc.abstractmethod
    def hurry(self) -> None:
        """Expect a commit soon: look more often for a while."""

    def rest(self) -> None:  # noqa: B027 - most have nothing to stop
        """Expect no `wait` for a while; raises nothing."""

    @abc.abstractmethod
    def interrupt(self) -> None:
        """Make the running `wait`, or else the next one, return soon."""

    @abc.abstractmethod
    def close(self) -> None:
        """Give the connection back; idempotent, raises nothing.

        A `wait` that follows opens another, and answers True at once.
        """
