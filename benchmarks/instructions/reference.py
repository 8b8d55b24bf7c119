"""The yardstick: a fixed piece of plain Python, of the same mixture as the paths.

Changing it changes every ratio, so it stays as it is.
"""

from __future__ import annotations

import json
import struct
import zlib

__all__ = ["CALLS", "reference"]

CALLS = 200
"""How often it is called."""

_PREFIX = struct.Struct("!2sII")


class _Parcel:
    def __init__(self, key: str, fields: dict[str, object]) -> None:
        self.key = key
        self.fields = fields

    def pack(self) -> bytes:
        body = json.dumps([self.key, self.fields], separators=(",", ":")).encode()
        return _PREFIX.pack(b"r1", zlib.crc32(body), len(body)) + body

    @classmethod
    def unpack(cls, data: bytes) -> _Parcel:
        version, checksum, length = _PREFIX.unpack_from(data)
        body = data[_PREFIX.size :]
        if version != b"r1" or len(body) != length or zlib.crc32(body) != checksum:
            raise ValueError("not a parcel")
        key, fields = json.loads(body)
        return cls(key, fields)

    def check(self) -> int:
        total = 0
        for name, value in self.fields.items():
            if not name.isascii():
                raise ValueError(name)
            total += len(str(value))
        return total


def reference() -> int:
    """Pack, unpack and look over one small parcel; return the length of its values."""
    fields: dict[str, object] = {"id": 4711, "name": "a parcel", "part": 0.25, "done": True}
    return _Parcel.unpack(_Parcel("reference:0123456789abcdef", fields).pack()).check()
