"""A socket whose every send and receive ends at one moment, whatever the server does."""

from __future__ import annotations

import re
import select
import socket
import ssl
from typing import Any, Final, final

import redis

from upshot import clock

__all__ = ["TimedSocket"]

_LATE: Final = 16  # receives after `until`, of what has arrived: 1 MiB
_LONGEST_LINE: Final = 2**20  # bytes; an answer begins with a line: a type and a length, an error
_HUGE: Final = re.compile(rb"[*%~>]\d{8}")  # ten million parts; a batch has thousands
_AGAIN: Final = (ssl.SSLWantReadError, ssl.SSLWantWriteError)


@final
class TimedSocket:
    """Stands between a redis-py connection and its socket.

    redis-py gives each `recv` the whole timeout again, so a server that trickles would never be
    late. With `until` in the past, a receive takes what has arrived already or times out, and a
    server that does not stop talking is late too. With an `until` of 0, it never is.

    An answer whose first line does not end, or announces more parts than any has, is refused:
    hiredis would keep it and search it again and again, or make room for the parts.

    Python's own timeouts cost a system call more for each send and each receive. So the socket
    never blocks, except over TLS, whose library reads more than once. The kernel's own timeouts
    would begin anew with each signal that the thread gets, and one that comes often outlast them.

    Args:
        wrapped: connected, and through with its TLS handshake.
        until: on the monotonic clock.

    Attributes:
        until: set before each use.
        received: bytes that have come so far; set to 0 by whoever counts.
    """

    def __init__(self, wrapped: socket.socket, until: float) -> None:
        self._socket = wrapped
        self.until = until
        self.received = 0
        self._begins = True
        self._head = b""
        self._late = 0
        self._is_tls = isinstance(wrapped, ssl.SSLSocket)
        if not self._is_tls:
            wrapped.settimeout(0.0)
            self._readable, self._writable = select.poll(), select.poll()
            self._readable.register(wrapped, select.POLLIN)
            self._writable.register(wrapped, select.POLLOUT)

    def recv(self, size: int) -> bytes:
        buffer = bytearray(size)
        return bytes(buffer[: self.recv_into(buffer)])

    def recv_into(self, buffer: bytearray) -> int:
        size = self._received_over_tls(buffer) if self._is_tls else self._received(buffer)
        self.received += size
        if self._begins:
            self._look(buffer, size)
        return size

    def sendall(self, data: bytes) -> None:
        self._begins, self._head, self._late = True, b"", 0
        rest = memoryview(data)
        while rest:
            rest = rest[self._sent_over_tls(rest) if self._is_tls else self._sent(rest) :]

    def settimeout(self, seconds: float | None) -> None:
        """Do nothing: redis-py would set its own idea of a timeout. `until` decides."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def _received(self, buffer: bytearray) -> int:
        while True:
            self._wait(self._readable)
            try:
                return self._socket.recv_into(buffer)
            except BlockingIOError:
                continue  # the kernel may wake a process for nothing

    def _sent(self, data: memoryview) -> int:
        while True:
            try:
                return self._socket.send(data)
            except BlockingIOError:
                self._wait(self._writable)

    def _received_over_tls(self, buffer: bytearray) -> int:
        self._socket.settimeout(self._left())
        try:
            return self._socket.recv_into(buffer)
        except _AGAIN as exc:
            raise TimeoutError("timed out") from exc

    def _sent_over_tls(self, data: memoryview) -> int:
        self._socket.settimeout(self._left())
        try:
            return self._socket.send(data)
        except _AGAIN as exc:
            raise TimeoutError("timed out") from exc

    def _wait(self, poll: select.poll) -> None:
        if not poll.poll(self._left() * 1000):
            raise TimeoutError("timed out")

    def _left(self) -> float:
        """Return the seconds that the next wait may take; none once `until` has passed.

        Raises:
            TimeoutError: the server was late too often.
        """
        left = self.until - clock.monotonic()
        if left <= 0 and self.until:
            self._late += 1
            if self._late > _LATE:
                raise TimeoutError("timed out: the server goes on and on")
        return max(0.0, left)

    def _look(self, buffer: bytearray, size: int) -> None:
        """Look at the first bytes of an answer, until its first line is there."""
        if not self._head and not _HUGE.match(buffer) and buffer.find(b"\r\n", 0, size) >= 0:
            self._begins = False
            return
        self._head += bytes(memoryview(buffer)[:size])
        if _HUGE.match(self._head):
            raise redis.InvalidResponse("Protocol error: an answer of more parts than any has")
        self._begins = size > 0 and b"\r\n" not in self._head
        if not self._begins:
            self._head = b""
        elif len(self._head) > _LONGEST_LINE:
            raise redis.InvalidResponse("Protocol error: a line without an end")
