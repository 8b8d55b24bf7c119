"""Several servers that make one service, started and ended together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import ClassVar, Self

from upshot import clock

from .base import Server
from .installation import ServerError

__all__ = ["Ensemble"]

_POLL = 0.05
"""Seconds between two looks at servers that are finding each other; that takes a second or two."""


class Ensemble(ABC):
    """Private servers that know each other, with the surface of one `Server`.

    `kill()`, `pause()`, `restart()` and `resume()` concern all of them; to fail a single one, call
    the same on one of `servers`. Not thread-safe.

    Args:
        start_timeout: seconds that each server may take until it answers, and then all of them
            until they are one service.
    """

    name: ClassVar[str]
    """What people call the service."""

    def __init__(self, *, start_timeout: float = 60.0) -> None:
        self._start_timeout = start_timeout

    @property
    @abstractmethod
    def servers(self) -> Sequence[Server]:
        """Every server, in the order in which they start."""

    @property
    @abstractmethod
    def url(self) -> str:
        """The URL a backend or broker opens.

        Raises:
            ServerError: the service was not started.
        """

    @abstractmethod
    def _introduce(self) -> None:
        """Make servers that were just started for the first time know each other."""

    @abstractmethod
    def _is_whole(self) -> bool:
        """Probe once whether they are one service; an OSError counts as "not yet"."""

    def start(self) -> None:
        """Start all and return once they are one service; nothing is left behind on failure.

        Raises:
            ServerError: as for `Server.start`, or they did not find each other in time.
        """
        try:
            for server in self.servers:
                server.start()
            self._introduce()
            self._wait_until(self._is_whole, "become one service")
        except BaseException:  # Ctrl-C while they start must not leave them running
            self.stop()
            raise

    def stop(self) -> None:
        """End all, by force if it must be, and remove their folders; idempotent."""
        for server in reversed(self.servers):
            server.stop()

    def kill(self) -> None:
        """End all at once with SIGKILL; their folders and ports stay for `restart()`."""
        for server in self.servers:
            server.kill()

    def restart(self) -> None:
        """Start all again on the same ports and files; return once they are one service.

        Raises:
            ServerError: never started, or as for `start()`.
        """
        for server in self.servers:
            server.restart()
        self._wait_until(self._is_whole, "become one service again")

    def pause(self) -> None:
        """Freeze all: clients stay connected and get no answer until `resume()`."""
        for server in self.servers:
            server.pause()

    def resume(self) -> None:
        """Let paused servers go on."""
        for server in self.servers:
            server.resume()

    @property
    def running(self) -> bool:
        """True while every server runs."""
        return all(server.running for server in self.servers)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _wait_until(self, is_so: Callable[[], bool], what: str) -> None:
        deadline = clock.Deadline(self._start_timeout)
        while not deadline.expired:
            with suppress(OSError):
                if is_so():
                    return
            clock.sleep(_POLL)
        raise ServerError(f"{self.name} did not {what} within {self._start_timeout:g} s")
