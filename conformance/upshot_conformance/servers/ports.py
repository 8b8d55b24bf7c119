"""Loopback ports that stay ours from the moment they are chosen."""

from __future__ import annotations

import socket
import sys

__all__ = ["LOOPBACK", "PortReservation"]

LOOPBACK = "127.0.0.1"
"""The only address a private server listens on."""


class PortReservation:
    """A free TCP port on 127.0.0.1, held for one server until `close()`.

    Asking the kernel for a free port, closing the socket and starting a server is a race: another
    process may be handed the same port in between, and so may anyone while a server restarts.
    On Linux a socket that is bound but does not listen keeps the kernel from handing out its
    port, yet lets a server bind it when both set SO_REUSEADDR, which every server here does.
    Elsewhere the port is freed at once, and the caller retries when the bind fails.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((LOOPBACK, 0))
        self.number: int = self._socket.getsockname()[1]
        if sys.platform != "linux":
            self._socket.close()

    def close(self) -> None:
        """Give the port back; a second call does nothing."""
        self._socket.close()
