"""One connection through a proxy, and what is under way on it."""

from __future__ import annotations

import socket
import struct
from collections import deque
from typing import Final, final

from upshot import clock

__all__ = ["NEVER", "Link", "Pipe"]

NEVER: Final = float("inf")
"""When nothing is due."""

_MOST: Final = 2**20  # bytes under way in one direction, until the other side has taken some
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER for no time: closing resets the connection


@final
class Pipe:
    """What one side of a connection says to the other, as far as it is under way."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source = source
        self.sink = sink
        self.ended = False
        """The source has said its last."""
        self.shut = False
        """The sink has been told so."""
        self._pieces: deque[tuple[float, bytes]] = deque()
        self._size = 0

    @property
    def is_hungry(self) -> bool:
        """True while more may be read from the source."""
        return not self.ended and self._size < _MOST

    @property
    def due(self) -> float:
        """When the next piece may be sent, on the monotonic clock."""
        return self._pieces[0][0] if self._pieces and not self.shut else NEVER

    def put(self, data: bytes, due: float) -> None:
        """Take a piece to be sent at a moment or later; b"" is the end."""
        self._pieces.append((due, data))
        self._size += len(data)

    def drip(self, data: bytes, pause: float) -> None:
        """Take a piece to be sent a byte at a time, each `pause` seconds after the one before."""
        due = max(clock.monotonic(), self._pieces[-1][0] if self._pieces else 0.0)
        for number in range(len(data)):
            due += pause
            self.put(data[number : number + 1], due)

    def hurry(self) -> None:
        """Let all that is under way be sent at once."""
        self._pieces = deque((0.0, data) for _, data in self._pieces)

    def flush(self) -> None:
        """Send what is due; BlockingIOError if the sink takes no more for now."""
        while self.due <= clock.monotonic():
            due, data = self._pieces.popleft()
            if not data:
                self.sink.shutdown(socket.SHUT_WR)
                self.shut = True
                return
            sent = 0
            try:
                sent = self.sink.send(data)
            finally:
                self._size -= sent
                if sent < len(data):
                    self._pieces.appendleft((due, data[sent:]))


@final
class Link:
    """One connection of a client, and the one to the service that belongs to it."""

    def __init__(self, client: socket.socket, service: socket.socket) -> None:
        self.service = service
        self.watched = dict.fromkeys((client, service), 0)
        """For which events the selector looks at a socket."""
        self.requests = Pipe(client, service)
        self.replies = Pipe(service, client)
        self.connected = False
        self.answered = True
        """The client has not spoken since the service did."""
        self.mute = False
        """The client was told that the service has said its last."""
        self.spoiled = False
        """Something that the service said was thrown away."""
        for each in self.watched:
            each.setblocking(False)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self, *, reset: bool) -> None:
        """Close both sides.

        Args:
            reset: tell either at once that the connection failed, whatever is under way; otherwise
                both have said and heard their last.
        """
        for each in self.watched:
            if reset:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            each.close()
