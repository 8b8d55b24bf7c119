"""How a record lies in memcached's items, and how long those live.

    <key>                       "upW1", then barrier (4 bytes), moment (8), then the encoded record
    <key>                       or, if that is too long for one item, the head: "upP1", barrier,
                                moment, then generation (16), length (8), part size (4), CRC-32 (4)
    <key>/<generation>/<n>      the parts, n = 0, 1, … in hex

All numbers are in network byte order. The moment is when the record expires, in seconds since the
epoch as a float, infinite for never. The generation is random, new for each record: parts are
written first, the head then makes them the record in one step, and no other record ever uses them.
"""

from __future__ import annotations

import base64
import math
import re
import secrets
import struct
import zlib
from typing import Final, NamedTuple

__all__ = [
    "MAX_KEY",
    "MAX_RECORD",
    "PART",
    "Item",
    "Parts",
    "exptime",
    "head",
    "moment",
    "read",
    "read_whole",
    "whole",
]

PART: Final = 2**20 - 1024
"""Bytes of a record in one item. An item has at most 1 MiB (the server's option `-I`), of which
key, header and memcached's own 56 bytes take less than 1024."""

MAX_RECORD: Final = 16 * 2**20
"""The longest record, in bytes: a quarter of the memory that a server has by default (`-m 64`), so
that storing one does not evict its own parts."""

MAX_KEY: Final = 250 - len("/") - 16 - len("/ff")
"""The longest key of a record, in bytes: memcached's limit is 250, and a part's key is longer."""

_WHOLE: Final = b"upW1"
_PARTED: Final = b"upP1"
_HEADER: Final = struct.Struct("!4sId")
_BODY: Final = _HEADER.size
_MOMENT: Final = struct.Struct("!d")  # of the header, from byte 8
_PARTS: Final = struct.Struct("!16sQII")
_GENERATION: Final = re.compile(rb"[\w-]{16}")  # nothing that could end a key, and a command
_LEAST_PART: Final = 2**16  # bytes; heads that claim smaller parts, and so thousands, are not ours

_RELATIVE: Final = 30 * 86_400  # above this, memcached takes a number as seconds since 1970
_LATEST: Final = 2**31 - 1  # the last second since 1970 that memcached's parser takes
_SLACK: Final = 2
"""Seconds that an item outlives its record. memcached counts seconds with a timer that ticks once
in one: its clock may stand still for almost two, and then jump."""


class Parts(NamedTuple):
    """What a head says of its parts."""

    generation: bytes
    length: int
    size: int
    checksum: int

    def keys(self, key: bytes) -> list[bytes]:
        """Return the parts' keys, in order, for the record under `key`."""
        count = math.ceil(self.length / self.size)
        return [b"%b/%b/%x" % (key, self.generation, number) for number in range(count)]

    def cut(self, body: bytes) -> list[bytes]:
        """Return the parts of `body`, in order."""
        return [body[start : start + self.size] for start in range(0, self.length, self.size)]

    def are(self, body: bytes) -> bool:
        """Tell whether `body` is what the parts held when the head was made."""
        return len(body) == self.length and zlib.crc32(body) == self.checksum

    @classmethod
    def of(cls, body: bytes) -> Parts:
        """Return parts for a new record."""
        generation = base64.urlsafe_b64encode(secrets.token_bytes(12))
        return cls(generation, len(body), PART, zlib.crc32(body))


class Item(NamedTuple):
    """What is stored under a record's key.

    Attributes:
        barrier: the rank that a later write must reach; 0 for what is no record.
        body: the encoded record; None if it is in parts. What is no record is returned as it is,
            so that the core says so.
        parts: where it is then.
        expired: it is as good as not there.
    """

    barrier: int
    body: bytes | None
    parts: Parts | None
    expired: bool


def whole(body: bytes, *, barrier: int, moment: float) -> bytes:
    """Return the item of a record that fits in one."""
    return _HEADER.pack(_WHOLE, barrier, moment) + body


def head(parts: Parts, *, barrier: int, moment: float) -> bytes:
    """Return the item under the key of a record in parts."""
    return _HEADER.pack(_PARTED, barrier, moment) + _PARTS.pack(*parts)


def read(data: bytes, now: float) -> Item:
    """Take an item apart.

    Args:
        data: what memcached holds, whoever wrote it.
        now: seconds since the epoch.
    """
    if len(data) >= _HEADER.size:
        kind, barrier, until = _HEADER.unpack_from(data)
        expired = until <= now
        if kind == _WHOLE:
            return Item(barrier, data[_HEADER.size :], None, expired)
        if kind == _PARTED and len(data) == _HEADER.size + _PARTS.size:
            parts = Parts(*_PARTS.unpack_from(data, _HEADER.size))
            if (
                parts.size >= _LEAST_PART
                and parts.length <= MAX_RECORD
                and _GENERATION.fullmatch(parts.generation)
            ):
                return Item(barrier, None, parts, expired)
    return Item(0, data, None, expired=False)


def read_whole(data: bytes, now: float) -> bytes | None:
    """Return the record that an item holds whole; None if it expired, or for `read` to say."""
    if data.startswith(_WHOLE) and len(data) >= _BODY and _MOMENT.unpack_from(data, 8)[0] > now:
        return data[_BODY:]
    return None


def moment(expires: float | None, now: float) -> float:
    """Return when a record expires that is to live for `expires` seconds, None for ever."""
    return math.inf if expires is None else now + expires


def exptime(expires: float | None, now: float) -> int:
    """Return when memcached should drop an item, in the form that it takes.

    Never before the record expires, and never 0 for a record that does: that is "never". What
    memcached cannot count to is left to the moment in the item.

    Args:
        expires: seconds from now; None for never.
        now: seconds since the epoch. It matters above 30 days: memcached takes a date then, and
            the clocks of client and server should agree.
    """
    if expires is None or expires > _LATEST:
        return 0
    seconds = math.ceil(expires) + _SLACK
    if seconds <= _RELATIVE:
        return seconds
    date = math.ceil(now) + seconds
    return date if date <= _LATEST else 0
