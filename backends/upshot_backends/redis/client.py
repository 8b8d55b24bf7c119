"""What the Redis backend and the Redis broker ask a client for, wherever the keys live."""

from __future__ import annotations

import abc
import functools
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import ClassVar, Final

import redis
from redis.exceptions import AskError, NoScriptError

from upshot import clock
from upshot_backends.redis.driver import Argument, Reply
from upshot_backends.redis.server import Server

__all__ = [
    "Call",
    "NoOptions",
    "RedisClient",
    "Script",
    "command_of",
    "milliseconds",
    "replies",
    "script",
]

_LONGEST_EXPIRY: Final = 10**15
"""Milliseconds; about 31 000 years. Redis refuses what overflows 63 bits with the clock added."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoOptions:
    """The `upshot_…` parameters where there are none, so that any is refused."""


class Script:
    """A Lua script, known to the server by the SHA-1 of its text (that is Redis's protocol)."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


Call = tuple[Script, Sequence[str], Sequence[Argument]]
"""A script, its keys and its other arguments."""


def command_of(call: Call) -> tuple[Argument, ...]:
    """Return the command that runs a script the server knows."""
    lua, keys, args = call
    return ("EVALSHA", lua.sha, len(keys), *keys, *args)


@functools.cache
def script(*names: str) -> Script:
    """Return the script made of the named files in `scripts/`, preludes first."""
    folder = resources.files("upshot_backends.redis") / "scripts"
    return Script("\n".join((folder / f"{name}.lua").read_text("utf-8") for name in names))


def milliseconds(seconds: float | None) -> int:
    """Return an expiry as Redis takes it: rounded up, at least 1; 0 stands for "never"."""
    return 0 if seconds is None else math.ceil(max(1.0, min(seconds * 1000, _LONGEST_EXPIRY)))


class RedisClient(abc.ABC):
    """Redis as one process uses it; safe to use from any thread.

    A subclass knows where a key's server lives. Every method that talks takes `timeout`: the
    seconds that it may take in all, opening connections included.

    Class attributes to define:

        keys_per_call: how many keys one command or script call may name; 1 where each may live
            on another server.
        pubsub: the prelude of scripts that publish.
    """

    keys_per_call: ClassVar[int]
    pubsub: ClassVar[str]

    def __init__(self) -> None:
        self.database = 0
        """The number of the database."""
        self.closed = False
        """True from the moment that `close` was called."""

    def ask(self, commands: Sequence[Sequence[Argument]], timeout: float) -> list[Reply]:
        """Send commands and return their answers, in as few round trips as can be.

        A command goes where its first key lives, so all keys of one must live there.

        Raises:
            redis.ResponseError: the first error answer; the other commands were run all the same.
        """
        return replies(self._exchange(commands, clock.monotonic() + timeout))

    def run(
        self, lua: Script, calls: Sequence[tuple[Sequence[str], Sequence[Argument]]], timeout: float
    ) -> list[Reply]:
        """Run a script once per (keys, arguments), in as few round trips as can be.

        A server that does not know the script (restart, fail-over, SCRIPT FLUSH) gets it in a
        second round trip.

        Raises:
            redis.ResponseError: the first error answer; the other calls were made all the same.
        """
        return self.run_each([(lua, keys, args) for keys, args in calls], timeout)

    def run_each(
        self,
        calls: Sequence[Call],
        timeout: float,
    ) -> list[Reply]:
        """Run different scripts, otherwise like `run`.

        Raises:
            redis.ResponseError: the first error answer; the other calls were made all the same.
        """
        return replies(self.try_each(calls, timeout))

    def try_each(
        self,
        calls: Sequence[Call],
        timeout: float,
    ) -> list[Reply | redis.ResponseError]:
        """Do what `run_each` does, and return error answers among the others; see `replies`."""
        until = clock.monotonic() + timeout
        commands = [command_of(call) for call in calls]
        answers = self._exchange(commands, until)
        unknown = [i for i, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:
            again = [("EVAL", calls[i][0].text, *commands[i][2:]) for i in unknown]
            for i, answer in zip(unknown, self._exchange(again, until), strict=True):
                answers[i] = answer
        return answers

    @abc.abstractmethod
    def server(self, key: str, timeout: float) -> Server:
        """Return the server where `key` lives now."""

    @abc.abstractmethod
    def servers(self, timeout: float) -> Sequence[Server]:
        """Return every server where keys live now."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close every connection. Whoever waits for an answer gets a connection error."""

    @abc.abstractmethod
    def _exchange(
        self, commands: Sequence[Sequence[Argument]], until: float
    ) -> list[Reply | redis.ResponseError]:
        """Send commands and return their answers, errors among them."""


def replies(answers: Sequence[Reply | redis.ResponseError]) -> list[Reply]:
    """Return answers that are no errors.

    Raises:
        redis.ResponseError: the first error answer.
    """
    found: list[Reply] = []
    for answer in answers:
        if isinstance(answer, AskError):  # MovedError is one; only a single server's come here
            raise redis.ResponseError(
                "it is a node of a cluster: write redis+cluster://"
            ) from answer
        if isinstance(answer, redis.ResponseError):
            raise answer
        found.append(answer)
    return found
