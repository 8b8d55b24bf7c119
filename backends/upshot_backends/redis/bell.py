"""Waiting for messages: a blocking pop that outlives the fetch that sent it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, cast, final

import redis
from redis.exceptions import AskError

from upshot import clock
from upshot_backends.redis.client import RedisClient, script
from upshot_backends.redis.driver import Argument, Connection, read
from upshot_backends.redis.server import Server

__all__ = ["Bell"]

_BLOCK: Final = 10.0  # seconds that the server holds one blocking pop
_OVERDUE: Final = 5.0  # seconds after that until a silent server counts as gone
_SET_UP: Final = 5.0  # seconds to open the connection


@final
class Bell:
    """Hears when something was published; used by one thread at a time.

    An idle Redis ends a blocking pop up to 100 ms late (its timers tick ten times a second), which
    would delay messages with an `eta`. So the end of a wait is measured here, and the pop stays
    with the server for the next wait. That also saves a command per fetch.

    Args:
        client: opens the connection.
        keys: the lists to pop from.
    """

    def __init__(self, client: RedisClient, keys: Sequence[str]) -> None:
        self.keys = tuple(keys)
        self._client = client
        self._server: Server | None = None
        self._connection: Connection | None = None
        self._client_id = 0
        self._sent_at: float | None = None

    def wait(self, seconds: float) -> None:
        """Return when the bell rings, and after `seconds` at the latest.

        It also returns when the bell is somewhere else now, in a cluster: look again.

        Raises:
            redis.ConnectionError: the server closed the connection.
            redis.TimeoutError: the server should have ended the pop and is silent.
            redis.ResponseError: it refused the pop; it may have become a replica.
        """
        now = clock.monotonic()
        if self._server is not None and self._server.retired:
            self.close()
        try:
            connection = self._connection or self._connect()
            connection.timed.until = now + _SET_UP
            if self._sent_at is None:
                pop: list[Argument] = ["BLPOP", *self.keys, _BLOCK]
                connection.send_packed_command(connection.pack_commands([pop]))
                self._sent_at = now
            connection.timed.until = now + seconds
            answer = read(connection, disconnect_on_error=False)
            self._sent_at = None
            if isinstance(answer, AskError):  # MovedError is one; the next look follows it
                self.close()
            elif isinstance(answer, redis.ResponseError):
                raise answer
        except redis.TimeoutError:
            if self._sent_at is None or clock.monotonic() > self._sent_at + _BLOCK + _OVERDUE:
                self.close()
                raise
        except BaseException:  # whatever happened, the connection's state is unknown now
            self.close()
            raise

    def hush(self) -> None:
        """Take the pop back, so that it does not take the ring meant for somebody who waits.

        Raises nothing: whoever calls this holds messages, and must not lose them to an error.
        """
        server, connection = self._server, self._connection
        if server is None or connection is None or self._sent_at is None:
            return
        try:
            server.call("CLIENT", "UNBLOCK", self._client_id, timeout=_SET_UP)
            connection.timed.until = clock.monotonic() + _SET_UP
            popped = cast("list[bytes] | None", connection.read_response())
            self._sent_at = None
            if popped:  # it rang a moment ago: ring for the next one
                bell = popped[0].decode()
                keys = [bell.removesuffix("/bell"), bell]
                self._client.run(script("queue", "ring"), [(keys, [])], _SET_UP)
        except redis.RedisError:  # also where CLIENT UNBLOCK is not allowed: closing ends the pop
            self.close()

    def close(self) -> None:
        """Give the connection back; idempotent, raises nothing."""
        server, connection = self._server, self._connection
        self._server = self._connection = self._sent_at = None
        if server is not None and connection is not None:
            server.discard(connection)

    def _connect(self) -> Connection:
        until = clock.monotonic() + _SET_UP
        server = self._server = self._client.server(self.keys[0], _SET_UP)
        connection = self._connection = server.open(until)
        connection.send_packed_command(connection.pack_commands([("CLIENT", "ID")]))
        self._client_id = cast("int", connection.read_response())
        return connection
