"""Reading and removing records, whole ones and those in parts, while others write them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from upshot import clock
from upshot_backends.memcached import layout
from upshot_backends.memcached.layout import Item
from upshot_backends.memcached.wire import KEYS, STORED, Wire, refusal, storage

__all__ = ["load", "remove"]

_DAMAGED: Final = b"a part of this record is missing"
"""Stands for a record that has lost a part: no encoded record looks like this, so the core says
that it is corrupt. As if it were absent, its waiters would wait for what cannot come."""

_AT_ONCE: Final = -1  # the `exptime` of an item that is gone as soon as it is stored


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

    A plain `delete` could hit a record that was stored since its key was looked at, and whose
    parts nobody would know. So each item is replaced, if it is still the one that was seen, by one
    that has expired, which the `get` that follows makes memcached drop.
    """
    for start in range(0, len(keys), KEYS):
        pending = list(dict.fromkeys(keys[start : start + KEYS]))
        while pending:
            pending = _removed_once(wire, pending)


def _removed_once(wire: Wire, keys: Sequence[bytes]) -> list[bytes]:
    """Try once to remove; return the keys where somebody else was quicker."""
    found = wire.gets(keys)
    now = clock.now()
    if not found:
        return []
    wire.send(storage(b"cas", key, b"", _AT_ONCE, value.unique) for key, value in found.items())
    wire.send([b"get " + b" ".join(found) + b"\r\n"])
    answers = wire.answers(len(found))
    wire.read_values({})
    again: list[bytes] = []
    parts: list[bytes] = []
    for (key, value), answer in zip(found.items(), answers, strict=True):
        if answer == b"EXISTS":
            again.append(key)
        elif answer in (STORED, b"NOT_FOUND"):
            item = layout.read(value.data, now)
            parts += item.parts.keys(key) if item.parts else []
        else:
            raise refusal(answer)
    wire.remove(parts)
    return again
