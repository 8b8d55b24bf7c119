"""One Redis server as one process uses it: its connections, and errors that end them."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Sequence
from typing import Final

import redis
from redis.exceptions import MasterDownError

from upshot import clock
from upshot_backends.redis.driver import (
    Argument,
    Connection,
    DemotedError,
    Options,
    Reply,
    connect,
    read,
    send,
)

__all__ = ["LARGE", "Server"]

_NOT_MASTER: Final = (redis.ReadOnlyError, MasterDownError, DemotedError)
"""Answers of a server that takes no writes: behind the same name there may soon be another."""


LARGE: Final = 2**20
"""Bytes of answers after which a connection is not used again. The parser's buffer has room for the
longest one from then on, three times over, and ten idle connections would keep ten of them."""


class Server:
    """The connections of this process to one server; safe to use from any thread.

    Args:
        options: how to connect.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._idle: deque[Connection] = deque()
        self._busy: set[Connection] = set()
        self.retired = False
        """True once this server is no longer to be used; whoever holds a connection gives it
        back then and asks the client where its key lives now."""

    @property
    def host(self) -> str:
        """The name or address that it is reached by; "" for a Unix socket."""
        return str(self._options.get("host", ""))

    def call(self, *command: Argument, timeout: float) -> Reply:
        """Send one command to this very server and return its answer.

        Raises:
            redis.RedisError: it answered with an error, not in time, or not at all.
        """
        answer = self.exchange([command], clock.monotonic() + timeout)[0]
        if isinstance(answer, redis.ResponseError):
            raise answer
        return answer

    def exchange(
        self, commands: Sequence[Sequence[Argument]], until: float
    ) -> list[Reply | redis.ResponseError]:
        """Send commands in one write and return their answers, errors among them.

        Args:
            commands: in order.
            until: on the monotonic clock; opening a connection counts too. Only the resolution
                of a host name is beyond its reach.
        """
        return self.receive(self.send(commands, until), len(commands))

    def send(self, commands: Sequence[Sequence[Argument]], until: float) -> Connection:
        """Begin an exchange; `receive` or `discard` must follow."""
        connection = self._take(until)
        try:
            send(connection, commands)
        except BaseException as exc:
            self._fail(connection, exc)
            raise
        return connection

    def receive(self, connection: Connection, count: int) -> list[Reply | redis.ResponseError]:
        """End an exchange of `count` commands."""
        try:
            answers = [read(connection) for _ in range(count)]
        except BaseException as exc:  # an answer left unread would be taken for the next one's
            self._fail(connection, exc)
            raise
        for answer in answers:
            if isinstance(answer, _NOT_MASTER):
                self.discard(connection)
                self._drop_idle()
                self._doubt()
                return answers
        self._give_back(connection)
        return answers

    def open(self, until: float, *, protocol: int | None = None) -> Connection:
        """Open a connection that is the caller's own, to be given back by `discard`.

        Args:
            until: on the monotonic clock.
            protocol: 2 or 3; None for what the URL says.
        """
        options = self._options if protocol is None else {**self._options, "protocol": protocol}
        try:
            connection = connect(options, until)
        except (redis.ConnectionError, redis.TimeoutError):
            self._doubt()
            raise
        self._busy.add(connection)
        if self.retired:
            self.discard(connection)
            raise redis.ConnectionError("this connection is no longer needed")
        return connection

    def warm_up(self, until: float) -> None:
        """Open a connection for the next exchange, to see whether that can be done."""
        self._give_back(self.open(until))

    def discard(self, connection: Connection) -> None:
        """Close a connection, whatever state it is in; raises nothing."""
        self._busy.discard(connection)
        connection.disconnect()

    def retire(self) -> None:
        """Use this server no more; exchanges that are on their way come to their end."""
        self.retired = True
        self._drop_idle()

    def close(self) -> None:
        """Close every connection. Whoever waits for an answer gets a connection error."""
        self.retire()
        for connection in list(self._busy):
            try:
                # Not `disconnect`: the connection belongs to a thread that is reading from it.
                connection.timed.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # the server had closed it already

    def _take(self, until: float) -> Connection:
        try:
            connection = self._idle.pop()
        except IndexError:
            return self.open(until)
        connection.timed.until = until
        connection.timed.received = 0
        self._busy.add(connection)
        return connection

    def _give_back(self, connection: Connection) -> None:
        if connection.timed.received > LARGE:
            self.discard(connection)
            return
        self._busy.discard(connection)
        self._idle.append(connection)
        if self.retired:
            self._drop_idle()

    def _fail(self, connection: Connection, exc: BaseException) -> None:
        self.discard(connection)
        if isinstance(exc, redis.ConnectionError):
            self._drop_idle()  # what closed this one has closed the others: a restart
        if isinstance(exc, (redis.ConnectionError, redis.TimeoutError)):
            self._doubt()

    def _drop_idle(self) -> None:
        while True:
            try:
                self._idle.pop().disconnect()
            except IndexError:
                return

    def _doubt(self) -> None:
        """Take note that keys may live on another server now; for subclasses."""
