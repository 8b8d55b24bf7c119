"""Reading and removing records, whole ones and those in parts, while others write them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from upshot import clock
from upshot_backends.memcached import layout
from upshot_backends.memcached.layout import Item
from upshot_backends.memcached.wire import AHEAD, Wire

__all__ = ["load", "remove"]

_DAMAGED: Final = b"a part of this record is missing"
"""Stands for a record that has lost a part: no encoded record looks like this, so the core says
that it is corrupt. As if it were absent, its waiters would wait for what cannot come."""

_AROUND_KEYS: Final = 16  # bytes, at most, of what `Wire.take` sends around a key that it has twice


def load(wire: Wire, keys: Sequence[bytes]) -> dict[bytes, bytes]:
    """Return the encoded record under each of `keys` that has one and has not expired."""
    found = wire.get(keys)
    now = clock.now()
    bodies: dict[bytes, bytes] = {}
    for key, data in found.items():
        body = layout.read_whole(data, now)
        if body is not None:
            bodies[key] = body
            continue
        item = layout.read(data, now)
        body = item.body if item.parts is None else _joined(wire, key, item)
        if body is not None and not item.expired:
            bodies[key] = body
    return bodies


def _joined(wire: Wire, key: bytes, item: Item) -> bytes | None:
    """Return the record whose head was just read, or the one that has replaced it meanwhile."""
    while not item.expired and item.parts is not None:
        parts = item.parts
        keys = parts.keys(key)
        found = wire.get(keys)
        body = b"".join(found[each] for each in keys if each in found)
        if parts.are(body):
            return body
        data = wire.get([key]).get(key)
        if data is None:
            return None
        item = layout.read(data, clock.now())
        if item.parts == parts:
            return _DAMAGED
    return None if item.expired else item.body


def remove(wire: Wire, keys: Sequence[bytes]) -> None:
    """Remove the records under `keys` with all their parts; unknown ones are fine.

    A `delete` does not say what it removed, and a `get` before it not what there was by then: it
    could hit a record that was stored in between, and whose parts nobody would know.
    """
    for share in _shares(list(dict.fromkeys(keys))):
        taken = wire.take(share)
        now = clock.now()
        heads = ((key, layout.read(data, now)) for key, data in taken.items())
        wire.remove([part for key, item in heads if item.parts for part in item.parts.keys(key)])


def _shares(keys: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Cut keys into as many as `Wire.take` takes at a time."""
    longest = max(map(len, keys), default=0)
    most = max(1, AHEAD // (2 * longest + _AROUND_KEYS))
    return (keys[start : start + most] for start in range(0, len(keys), most))
