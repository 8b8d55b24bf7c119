"""The part of a service manager: a socket that hears what a service says."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

__all__ = ["Manager"]


class Manager:
    """Hears what a worker tells its service manager.

    Args:
        folder: where the socket is made.
    """

    def __init__(self, folder: Path) -> None:
        self.address = str(folder / "notify")
        self.heard: list[dict[str, str]] = []
        """Every datagram so far, its variables by name."""
        self._channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._channel.bind(self.address)

    def listen(self, timeout: float) -> dict[str, str]:
        """Return the next datagram; TimeoutError after so many seconds without one."""
        self._channel.settimeout(timeout)
        lines = self._channel.recv(4096).decode().splitlines()
        self.heard.append(dict(line.split("=", 1) for line in lines))
        return self.heard[-1]

    def until(self, holds: Callable[[dict[str, str]], bool]) -> dict[str, str]:
        """Return the first datagram from now on for which `holds` does."""
        while not holds(found := self.listen(30)):
            pass
        return found

    def close(self) -> None:
        """Hear no more."""
        self._channel.close()
