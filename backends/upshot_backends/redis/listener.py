"""The push connection: one pub/sub connection for every waiter of a process."""

from __future__ import annotations

import select
import socket
from collections.abc import Sequence
from typing import Final, cast, final

import redis

from upshot import clock
from upshot.listening import Hint, Listener
from upshot_backends.redis.server import Server

__all__ = ["READ_IT", "Alarm", "RedisListener"]

READ_IT: Final = b"?"
"""Published in the place of a body that is too long."""

_CHANNELS: Final = 1000  # in one command
_PARTS: Final = 3  # of a message: what it is, its channel, and its body or a number


@final
class Alarm:
    """Wakes a thread that polls descriptors; made of a socket pair."""

    def __init__(self) -> None:
        self._waking, self._woken = socket.socketpair()
        self._waking.setblocking(False)
        self._woken.setblocking(False)

    def fileno(self) -> int:
        """Return the descriptor to poll for reading."""
        return self._woken.fileno()

    def ring(self) -> None:
        """Wake the thread, or let its next poll end at once; any thread may do it."""
        try:
            self._waking.send(b"\0")
        except OSError:
            return  # full: a wake-up is on its way already; closed: nobody waits any more

    def silence(self) -> None:
        """Take back every ring so far."""
        try:
            while self._woken.recv(4096):
                pass
        except BlockingIOError:
            return

    def close(self) -> None:
        """Give the sockets back; idempotent."""
        self._waking.close()
        self._woken.close()


@final
class RedisListener(Listener):
    """Subscribes to one channel per awaited key.

    The connection is only ever used by the hub's thread. Another thread interrupts it through a
    socket pair, never through the connection: a TLS socket must not be shared.

    Args:
        server: opens the connection; always in RESP2, where a message is an ordinary answer. RESP3
            would add a push handler of redis-py's that formats every message for a log.
        suffix: what makes a key its channel.
        timeout: seconds to open it, and to have a subscription confirmed.
    """

    def __init__(self, server: Server, *, suffix: str, timeout: float) -> None:
        self._server = server
        self._suffix = suffix
        self._timeout = timeout
        self._connection = server.open(clock.monotonic() + timeout, protocol=2)
        self._heard: list[Hint] = []
        self._unconfirmed: set[str] = set()
        self._alarm = Alarm()
        self._poll = select.poll()
        self._poll.register(self._connection.timed.fileno(), select.POLLIN)
        self._poll.register(self._alarm.fileno(), select.POLLIN)

    lends = True

    def subscribe(self, keys: Sequence[str]) -> None:
        self._subscribe(keys, clock.monotonic() + self._timeout)

    def attend(self, key: str, timeout: float | None) -> None:
        seconds = self._timeout if timeout is None else min(timeout, self._timeout)
        self._subscribe([key], clock.monotonic() + seconds)
        # Whoever waits looks now. What was heard before the look may be of an earlier use of the
        # key, which nobody has taken: the one that waited had found it, or no more time.
        self._heard.clear()

    def _subscribe(self, keys: Sequence[str], until: float) -> None:
        self._unconfirmed.update(keys)
        self._send("SUBSCRIBE", keys, until)
        while self._unconfirmed:
            self._take(until)
        # What the parser has read ahead would not show on the socket: `wait` must not poll for it.
        self._drain()

    def unsubscribe(self, keys: Sequence[str]) -> None:
        # The confirmations are read, and ignored, by the waits that follow.
        self._send("UNSUBSCRIBE", keys, clock.monotonic() + self._timeout)

    def wait(self, timeout: float) -> Sequence[Hint]:
        if self._server.retired:  # it may be reachable still, but nobody writes to it
            raise redis.ConnectionError("results are stored on another server now")
        if not self._heard:
            ready = self._poll.poll(max(0.0, timeout) * 1000)
            for descriptor, _ in ready:
                if descriptor == self._alarm.fileno():
                    self._alarm.silence()
                else:
                    self._drain()
        heard, self._heard = self._heard, []
        return heard

    def interrupt(self) -> None:
        self._alarm.ring()

    def close(self) -> None:
        self._server.discard(self._connection)
        self._alarm.close()

    def _send(self, command: str, keys: Sequence[str], until: float) -> None:
        channels = [key + self._suffix for key in keys]
        commands = [
            (command, *channels[start : start + _CHANNELS])
            for start in range(0, len(channels), _CHANNELS)
        ]
        self._connection.timed.until = until
        self._connection.send_packed_command(self._connection.pack_commands(commands))

    def _drain(self) -> None:
        """Take everything that has arrived, and do not wait for more."""
        try:
            while True:
                self._take(until=0.0)
        except redis.TimeoutError:
            return

    def _take(self, until: float) -> None:
        """Read one message.

        Raises:
            redis.TimeoutError: none has arrived by `until`; one that has arrived in part is kept.
        """
        self._connection.timed.until = until
        message = self._connection.read_response(disconnect_on_error=False)
        if not isinstance(message, list) or len(cast("list[object]", message)) != _PARTS:
            raise redis.InvalidResponse("Protocol error: what came is no message of a channel")
        kind, channel, body = cast("tuple[bytes, bytes, bytes | int]", message)
        key = channel.decode().removesuffix(self._suffix)
        if kind == b"subscribe":
            self._unconfirmed.discard(key)
        elif kind == b"message":
            self._heard.append(Hint(key, None if body == READ_IT else cast("bytes", body)))
