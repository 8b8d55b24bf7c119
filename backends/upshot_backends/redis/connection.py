"""What the Redis backend and the Redis broker share: a server's connections and its scripts."""

from __future__ import annotations

import functools
import hashlib
import math
import socket
from collections import deque
from collections.abc import Sequence
from importlib import resources
from typing import Final

import redis
from redis.exceptions import NoScriptError

from upshot import clock
from upshot.url import Url
from upshot_backends.redis.driver import (
    Argument,
    Connection,
    Options,
    Reply,
    connect,
    driver_options,
    read,
)

__all__ = ["RedisClient", "Script", "milliseconds", "script"]

_LONGEST_EXPIRY: Final = 10**15
"""Milliseconds; about 31 000 years. Redis refuses what overflows 63 bits with the clock added."""


class Script:
    """A Lua script, known to the server by the SHA-1 of its text (that is Redis's protocol)."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


@functools.cache
def script(*names: str) -> Script:
    """Return the script made of the named files in `scripts/`, preludes first."""
    folder = resources.files("upshot_backends.redis") / "scripts"
    return Script("\n".join((folder / f"{name}.lua").read_text("utf-8") for name in names))


def milliseconds(seconds: float | None) -> int:
    """Return an expiry as Redis takes it: rounded up, at least 1; 0 stands for "never"."""
    return 0 if seconds is None else math.ceil(max(1.0, min(seconds * 1000, _LONGEST_EXPIRY)))


class RedisClient:
    """One Redis server as one process uses it; safe to use from any thread.

    Every method that talks to the server takes `timeout`: the seconds that it may take in all,
    opening a connection included. Only the resolution of a host name is beyond its reach.

    Args:
        url: `redis://`, `rediss://` or `redis+unix://`, with redis-py's own parameters. Of these,
            `retry_on_timeout`, `retry_on_error`, `decode_responses`, `encoding` and
            `socket_timeout` have no effect: upshot retries, decodes and counts time by itself.

    Raises:
        UrlError: redis-py does not take a parameter, or the path is no database number.
    """

    def __init__(self, url: Url) -> None:
        self._options = driver_options(url)
        self.database = int(self._options.get("db") or 0)
        self._idle: deque[Connection] = deque()
        self._busy: set[Connection] = set()
        self.closed = False
        """True from the moment that `close` was called."""

    def call(self, *command: Argument, timeout: float) -> Reply:
        """Send one command and return its answer; an error answer is raised."""
        answer = self._exchange([command], timeout)[0]
        if isinstance(answer, redis.ResponseError):
            raise answer
        return answer

    def run(
        self, lua: Script, calls: Sequence[tuple[Sequence[str], Sequence[Argument]]], timeout: float
    ) -> list[Reply]:
        """Run a script once per (keys, arguments), in order, in one round trip.

        A server that does not know the script (restart, fail-over, SCRIPT FLUSH) gets it in a
        second round trip.

        Raises:
            redis.ResponseError: the first error answer; the other calls were made all the same.
        """
        deadline = clock.Deadline(timeout)
        commands = [("EVALSHA", lua.sha, len(keys), *keys, *args) for keys, args in calls]
        answers = self._exchange(commands, timeout)
        unknown = [i for i, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:
            again = [("EVAL", lua.text, *commands[i][2:]) for i in unknown]
            for i, answer in zip(
                unknown, self._exchange(again, deadline.left() or 0.0), strict=True
            ):
                answers[i] = answer
        replies: list[Reply] = []
        for answer in answers:
            if isinstance(answer, redis.ResponseError):
                raise answer
            replies.append(answer)
        return replies

    def open(self, timeout: float, *, protocol: int | None = None) -> Connection:
        """Open a connection that is the caller's own, to be given back by `discard`.

        Args:
            timeout: seconds.
            protocol: 2 or 3; None for what the URL says.
        """
        options = self._options if protocol is None else {**self._options, "protocol": protocol}
        return self._open(clock.monotonic() + timeout, options)

    def discard(self, connection: Connection) -> None:
        """Close a connection, whatever state it is in; raises nothing."""
        self._busy.discard(connection)
        connection.disconnect()

    def close(self) -> None:
        """Close every connection. Whoever waits for an answer gets a connection error."""
        self.closed = True
        self._drop_idle()
        for connection in list(self._busy):
            try:
                # Not `disconnect`: the connection belongs to a thread that is reading from it.
                connection.timed.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # the server had closed it already

    def _exchange(
        self, commands: Sequence[Sequence[Argument]], timeout: float
    ) -> list[Reply | redis.ResponseError]:
        """Send commands in one write and return their answers, errors among them."""
        until = clock.monotonic() + timeout
        connection = self._take(until)
        try:
            connection.send_packed_command(connection.pack_commands(commands))
            answers = [read(connection) for _ in commands]
        except BaseException as exc:  # an answer left unread would be taken for the next one's
            self.discard(connection)
            if isinstance(exc, redis.ConnectionError):
                self._drop_idle()  # what closed this one has closed the others: a restart
            raise
        self._busy.discard(connection)
        self._idle.append(connection)
        if self.closed:
            self._drop_idle()
        return answers

    def _take(self, until: float) -> Connection:
        try:
            connection = self._idle.pop()
        except IndexError:
            return self._open(until, self._options)
        connection.timed.until = until
        self._busy.add(connection)
        return connection

    def _open(self, until: float, options: Options) -> Connection:
        connection = connect(options, until)
        self._busy.add(connection)
        if self.closed:
            self.discard(connection)
            raise redis.ConnectionError("this client is closed")
        return connection

    def _drop_idle(self) -> None:
        while True:
            try:
                self._idle.pop().disconnect()
            except IndexError:
                return
