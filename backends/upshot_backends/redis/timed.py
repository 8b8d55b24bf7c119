"""A socket whose every send and receive ends at one moment, whatever the server does."""

from __future__ import annotations

import re
import socket
import ssl
import struct
from typing import Any, Final, final

import redis

from upshot import clock

__all__ = ["TimedSocket"]

_LATE: Final = 16  # receives after `until`, of what has arrived: 1 MiB
_LONGEST_LINE: Final = 2**20  # bytes; an answer begins with a line: a type and a length, an error
_HUGE: Final = re.compile(rb"[*%~>]\d{8}")  # ten million parts; a batch has thousands
_TICK: Final = 1.0  # seconds that the kernel waits at a time
_TIMEVAL: Final = struct.Struct("@ll")  # seconds, microseconds
_AGAIN: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


@final
class TimedSocket:
    """Stands between a redis-py connection and its socket.

    redis-py gives each `recv` the whole timeout again, so a server that trickles would never be
    late. With `until` in the past, a receive takes what has arrived already or times out, and a
    server that does not stop talking is late too. With an `until` of 0, it never is.

    An answer whose first line does not end, or announces more parts than any has, is refused:
    hiredis would keep it and search it again and again, or make room for the parts.

    Python's own timeouts cost two system calls more for each send and each receive. So the kernel
    keeps the time, except over TLS, whose library reads more than once.

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
        self._armed = {socket.SO_RCVTIMEO: 0.0, socket.SO_SNDTIMEO: 0.0}
        self._is_timed_by_kernel = not isinstance(wrapped, ssl.SSLSocket)
        if self._is_timed_by_kernel:
            wrapped.settimeout(None)

    def recv(self, size: int) -> bytes:
        buffer = bytearray(size)
        return bytes(buffer[: self.recv_into(buffer)])

    def recv_into(self, buffer: bytearray) -> int:
        while True:
            flags, is_last = self._arm(socket.SO_RCVTIMEO)
            try:
                size = self._socket.recv_into(buffer, len(buffer), flags)
                break
            except _AGAIN as exc:
                if is_last:
                    raise TimeoutError("timed out") from exc
        self.received += size
        if self._begins:
            self._look(buffer, size)
        return size

    def sendall(self, data: bytes) -> None:
        self._begins, self._head, self._late = True, b"", 0
        rest = memoryview(data)
        while rest:
            flags, is_last = self._arm(socket.SO_SNDTIMEO)
            try:
                rest = rest[self._socket.send(rest, flags) :]
            except _AGAIN as exc:
                if is_last:
                    raise TimeoutError("timed out") from exc

    def settimeout(self, seconds: float | None) -> None:
        """Do nothing: redis-py would set its own idea of a timeout. `until` decides."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def _arm(self, option: int) -> tuple[int, bool]:
        """Bound the next call; return the flags that it needs, and whether none may follow it."""
        left = self.until - clock.monotonic()
        if left <= 0 and self.until:
            self._late += 1
            if self._late > _LATE:
                raise TimeoutError("timed out: the server goes on and on")
        if not self._is_timed_by_kernel:
            self._socket.settimeout(max(0.0, left))
            return 0, True
        if left <= 0:
            return socket.MSG_DONTWAIT, True
        wait = min(left, _TICK)
        if wait != self._armed[option]:
            # At least a microsecond: nothing would be for ever.
            seconds, micros = divmod(max(1, int(wait * 1e6)), 1_000_000)
            self._socket.setsockopt(socket.SOL_SOCKET, option, _TIMEVAL.pack(seconds, micros))
            self._armed[option] = wait
        return 0, left <= _TICK

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
