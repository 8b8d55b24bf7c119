"""One connection to a dict behind a socket: messages as `upshot_dict.server` describes them."""

from __future__ import annotations

import json
import socket
import time
from typing import Any, Final

__all__ = ["Connection", "Message", "RefusedError"]

_PIECE: Final = 2**18  # bytes asked of the socket at once
_LEAST: Final = 0.001  # seconds: 0 would mean "do not block" to a socket

Message = dict[str, Any]


class RefusedError(Exception):
    """The server understood the question, and will not answer it."""


class Connection:
    """A socket that is used by one thread at a time.

    Whatever it raises, close it: half an answer may be on its way, and would be the next one's.

    Args:
        address: host and port.
        timeout: seconds to connect in.
    """

    def __init__(self, address: tuple[str, int], timeout: float) -> None:
        self.socket = socket.create_connection(address, timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: Message, timeout: float) -> Message:
        """Send a request and return its answer; for connections that have not subscribed.

        Raises:
            OSError: the connection broke, or the time was up.
            RefusedError: the server refused.
        """
        deadline = time.monotonic() + timeout
        self.send(request, timeout)
        return self.receive(deadline - time.monotonic())

    def send(self, request: Message, timeout: float) -> None:
        """Send a request."""
        data = json.dumps(request).encode()
        self.socket.settimeout(max(_LEAST, timeout))  # for all of it together
        self.socket.sendall(len(data).to_bytes(4, "big") + data)

    def receive(self, timeout: float) -> Message:
        """Return the next message."""
        deadline = time.monotonic() + timeout
        size = int.from_bytes(self._exactly(4, deadline), "big")
        message: Message = json.loads(self._exactly(size, deadline))
        if "error" in message:
            raise RefusedError(message["error"])
        return message

    def close(self) -> None:
        """Give the socket back; idempotent."""
        self.socket.close()

    def _exactly(self, size: int, deadline: float) -> bytes:
        data = bytearray()
        while len(data) < size:
            self.socket.settimeout(max(_LEAST, deadline - time.monotonic()))
            piece = self.socket.recv(min(size - len(data), _PIECE))
            if not piece:
                raise ConnectionError("the server closed the connection")
            data += piece
        return bytes(data)
