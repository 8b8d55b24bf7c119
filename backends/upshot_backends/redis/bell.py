"""Waiting for messages: a blocking pop that outlives the fetch that sent it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, cast, final

import redis
from redis.exceptions import AskError, NoScriptError

from upshot import clock
from upshot_backends.redis.client import Call, RedisClient, command_of, script
from upshot_backends.redis.driver import Connection, Reply, read, send
from upshot_backends.redis.server import LARGE, Server

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
        self._leave_retired()
        try:
            connection = self._connection or self._connect()
            connection.timed.until = now + _SET_UP
            if self._sent_at is None:
                send(connection, [("BLPOP", *self.keys, _BLOCK)])
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

    @property
    def is_waiting(self) -> bool:
        """Whether the server holds a pop that an earlier `wait` has sent."""
        return self._sent_at is not None

    def wait_for(self, call: Call, seconds: float) -> Reply:
        """Let the server run a script as soon as the bell rings, or once the time is up.

        The script is sent along with the pop, which saves a round trip: the server runs what a
        blocked client has sent as soon as it is blocked no longer. Nothing of it is left when this
        returns, and the server decides when the time is up, so it may be up to 100 ms late.

        Returns:
            What the script answers; None if the server has not run it: it does not know the
            script, or the bell is somewhere else now, in a cluster.

        Raises:
            redis.ConnectionError, redis.TimeoutError, redis.ResponseError: as `wait`. Nobody knows
                whether the script was run.
        """
        self._leave_retired()
        try:
            connection = self._connection or self._connect()
            connection.timed.received = 0
            connection.timed.until = clock.monotonic() + _SET_UP
            send(connection, [("BLPOP", *self.keys, seconds), command_of(call)])
            connection.timed.until = clock.monotonic() + seconds + _OVERDUE
            # What the pop says does not matter: the script looks for itself.
            read(connection, disconnect_on_error=False)
            answer = read(connection, disconnect_on_error=False)
            if isinstance(answer, AskError):  # MovedError is one; the next look follows it
                self.close()
                return None
            if isinstance(answer, NoScriptError):
                return None
            if isinstance(answer, redis.ResponseError):
                raise answer
        except BaseException:
            self.close()
            raise
        if connection.timed.received > LARGE:  # the parser's buffer has room for it from now on
            self.close()
        return answer

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

    def _leave_retired(self) -> None:
        if self._server is not None and self._server.retired:
            self.close()

    def _connect(self) -> Connection:
        until = clock.monotonic() + _SET_UP
        server = self._server = self._client.server(self.keys[0], _SET_UP)
        connection = self._connection = server.open(until)
        connection.send_packed_command(connection.pack_commands([("CLIENT", "ID")]))
        self._client_id = cast("int", connection.read_response())
        return connection
