"""memcached's text protocol on one connection: many commands in one write, answers in order.

pymemcache has no way to send several `cas` commands at once, which the guard of a batch needs.
The protocol: https://github.com/memcached/memcached/blob/master/doc/protocol.txt
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, final

from upshot_backends.memcached.driver import (
    MemcacheClientError,
    MemcacheError,
    MemcacheServerError,
    MemcacheUnexpectedCloseError,
    MemcacheUnknownError,
    TimedSocket,
)

__all__ = ["AHEAD", "KEYS", "STORED", "Value", "Wire", "refusal", "storage"]

KEYS: Final = 1000
"""Keys in one command, and commands before their answers are read: what the core sends at once."""

STORED: Final = b"STORED"
"""The answer to a command that stored something."""

AHEAD: Final = 16 * 2**10
"""Bytes of commands that may follow one with a long answer before that is read: memcached reads no
further while its own answer is not taken, so they have to fit into the sockets' buffers."""

_TOO_LARGE: Final = b"SERVER_ERROR object too large"
_SIZE: Final = re.compile(rb"[0-9]{1,10}")  # of a value; the longest that memcached has is 1 GiB
_WRITE: Final = 2**16  # bytes gathered for one write
_READ: Final = 2**15  # bytes asked for in one read; the buffer is made each time
_LONGEST_LINE: Final = 2**16  # bytes; the longest of memcached's has a key of 250 and a few numbers
_LONG_READ: Final = 2**18  # the same, where that many are missing


class Value(NamedTuple):
    """What is stored under a key.

    Attributes:
        data: the bytes.
        unique: changes with every change of the item; b"" if the server did not tell.
    """

    data: bytes
    unique: bytes


@final
class Wire:
    """One connection; used by one thread at a time, and never again after an exception.

    Args:
        socket: the open connection, which the wire owns from now on.
    """

    def __init__(self, socket: TimedSocket) -> None:
        self.socket = socket
        self._buffer: bytes = b""
        self._position: int = 0

    def __del__(self) -> None:
        self.socket.close()  # no traffic; without it, Python would complain of a forgotten one

    @property
    def has_more(self) -> bool:
        """Whether something has come that no answer was: it would be taken for the next one."""
        return self._position < len(self._buffer)

    def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return what is stored under those of `keys` that are there."""
        found: dict[bytes, bytes] = {}
        for start in range(0, len(keys), KEYS):
            self.socket.sendall(b"get %b\r\n" % b" ".join(keys[start : start + KEYS]))
            self.read_values(found)
        return found

    def gets(self, keys: Sequence[bytes], *, also: bytes = b"") -> dict[bytes, Value]:
        """Like `get`, with each value's `unique`.

        Args:
            keys: at most 1000, as nothing is read before all is sent.
            also: commands to send in the same write, whose answers are then to be read; `AHEAD`
                bytes at most.
        """
        self.socket.sendall(b"gets %b\r\n%b" % (b" ".join(keys), also))
        found: dict[bytes, bytes] = {}
        uniques: dict[bytes, bytes] = {}
        self.read_values(found, uniques)
        return {key: Value(data, uniques.get(key, b"")) for key, data in found.items()}

    def take(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Remove what is stored under `keys`, and return it: exactly that, in one step for each.

        `gat` sets the moment at which an item expires while it reads it: here, one in the past.
        The `get` that follows makes memcached drop what has expired, and its memory free.

        Args:
            keys: so many that all the commands have `AHEAD` bytes at most.
        """
        commands = [b"gat -1 %b\r\n" % key for key in keys]
        commands.append(b"get %b\r\n" % b" ".join(keys))
        self.socket.sendall(b"".join(commands))
        found: dict[bytes, bytes] = {}
        for _ in keys:
            self.read_values(found)
        self.read_values({})  # what somebody has stored since stays
        return found

    def send(self, commands: Iterable[bytes]) -> int:
        """Send commands in few writes; return how many.

        Args:
            commands: at most 1000, each but the last with an answer of one short line, as nothing
                is read meanwhile.
        """
        gathered: list[bytes] = []
        count = size = 0
        for command in commands:
            gathered.append(command)
            count += 1
            size += len(command)
            if size >= _WRITE:
                self.socket.sendall(b"".join(gathered))
                gathered, size = [], 0
        if gathered:
            self.socket.sendall(b"".join(gathered))
        return count

    def exchange(self, commands: Iterable[bytes]) -> list[bytes]:
        """Send commands as `send` does, and return their answers, errors among them."""
        return self.answers(self.send(commands))

    def remove(self, keys: Sequence[bytes]) -> None:
        """Remove what is stored under `keys`, whatever it is; unknown ones are fine."""
        for start in range(0, len(keys), KEYS):
            self.exchange(b"delete %b\r\n" % key for key in keys[start : start + KEYS])

    def answers(self, count: int) -> list[bytes]:
        """Return the answers to `count` commands, errors among them; see `refusal`."""
        return [self._line() for _ in range(count)]

    def read_values(
        self, found: dict[bytes, bytes], uniques: dict[bytes, bytes] | None = None
    ) -> None:
        """Read the answer to one `get` or `gets` into `found`, and `uniques` if there are any.

        Raises:
            MemcacheError: the server refused, or answers something else.
        """
        buffer: bytes = self._buffer
        position: int = self._position
        while True:
            end = buffer.find(b"\r\n", position)
            if end >= 0:
                line = buffer[position:end]
                position = end + 2
            else:
                self._position = position
                line = self._line()
                buffer, position = self._buffer, self._position
            if line == b"END":
                break
            words = line.split(b" ")
            if words[0] != b"VALUE" or not 4 <= len(words) <= 5 or not _SIZE.fullmatch(words[3]):
                raise refusal(line)
            size = int(words[3])
            end = position + size
            if end + 2 > len(buffer):
                self._position = position
                end = self._fill(size)
                buffer, position = self._buffer, 0
            key = words[1]
            found[key] = buffer[position:end]
            if uniques is not None and len(words) == 5:
                uniques[key] = words[4]
            position = end + 2
        if position == len(buffer):  # an idle wire must not keep a large value
            self._buffer, self._position = b"", 0
        else:
            self._position = position

    def _line(self) -> bytes:
        end = self._buffer.find(b"\r\n", self._position)
        while end < 0:
            self._buffer = self._buffer[self._position :] + self._received()
            self._position = 0
            end = self._buffer.find(b"\r\n")
            if end < 0 and len(self._buffer) > _LONGEST_LINE:
                raise MemcacheUnknownError("not an answer of memcached: a line without an end")
        line = self._buffer[self._position : end]
        self._position = end + 2
        return line

    def _fill(self, size: int) -> int:
        """Read until the buffer has a value of `size` bytes; return where that ends."""
        pieces = [self._buffer[self._position :]]
        missing = size + 2 - len(pieces[0])
        while missing > 0:
            pieces.append(self._received(min(max(missing, _READ), _LONG_READ)))
            missing -= len(pieces[-1])
        self._buffer, self._position = b"".join(pieces), 0
        return size

    def _received(self, size: int = _READ) -> bytes:
        received = self.socket.recv(size)
        if not received:
            raise MemcacheUnexpectedCloseError("the server closed the connection")
        return received


def storage(verb: bytes, key: bytes, data: bytes, exptime: int, unique: bytes = b"") -> bytes:
    """Return a command that stores `data`: `add`, `set` or, with `unique`, `cas`.

    `exptime` is what memcached calls so: 0 for never, negative for "gone at once", up to 30 days
    in seconds from now, above that in seconds since 1970.
    """
    line = b"%b %b 0 %d %d" % (verb, key, exptime, len(data))
    return b"%b %b\r\n%b\r\n" % (line, unique, data) if unique else b"%b\r\n%b\r\n" % (line, data)


def refusal(line: bytes) -> MemcacheError:
    """Return the exception that an answer means which is none of those that were expected."""
    text = line[:200].decode(errors="replace")
    if line.startswith(_TOO_LARGE):  # it will not be smaller the next time
        return MemcacheClientError(
            f"{text}: the server's option -I must be 1m, its default, or more"
        )
    if line.startswith(b"SERVER_ERROR"):
        return MemcacheServerError(text)
    if line.startswith((b"CLIENT_ERROR", b"ERROR")):
        return MemcacheClientError(text)
    return MemcacheUnknownError(f"not an answer of memcached: {text!r}")
