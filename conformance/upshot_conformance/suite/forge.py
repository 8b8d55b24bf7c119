"""Bytes that no writer of this version makes, put where a record belongs.

The layout is the one of `upshot.record`: version, checksum, length of the header, header, payloads.
"""

from __future__ import annotations

import json
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from upshot.client import ResultClient
from upshot.record import Record
from upshot_conformance.records import success

__all__ = ["OTHER_LAYOUTS", "Forger", "forged", "header_of", "inject", "inject_many", "peak_of"]


Forger = Callable[[Record], bytes]
"""Makes bytes from a record that are not quite that record."""

_PREFIX: Final = struct.Struct("!2sII")
_PATIENCE: Final = 10.0  # seconds that the service has to take the bytes


def header_of(record: Record) -> list[Any]:
    """Return the fields of a record's header, in their order."""
    encoded = record.encode()
    _, _, length = _PREFIX.unpack_from(encoded)
    fields: list[Any] = json.loads(encoded[_PREFIX.size : _PREFIX.size + length])
    return fields


def forged(
    header: Sequence[object] | bytes,
    payloads: bytes = b"",
    *,
    version: bytes = b"u1",
    length: int | None = None,
) -> bytes:
    """Return bytes in the layout of a record, with a right checksum.

    Args:
        header: its fields, or the bytes in their place.
        payloads: what follows the header.
        version: two bytes; `b"u1"` is the one that can be read.
        length: what the bytes say about how long the header is; None for the truth.
    """
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    length = len(text) if length is None else length
    body = text + payloads
    return _PREFIX.pack(version, zlib.crc32(body, length), length) + body


def inject(client: ResultClient, task_id: str, body: bytes) -> None:
    """Store bytes where the terminal record of an id belongs, past the core's own checks."""
    inject_many(client, {task_id: body})


def inject_many(client: ResultClient, bodies: Mapping[str, bytes]) -> None:
    """Do so for each id at once."""
    sealed = [
        client.encode(success(task_id, None))._replace(body=body)
        for task_id, body in bodies.items()
    ]
    assert all(client.backend.store(sealed, _PATIENCE)), "bytes that were not applied"


def peak_of(action: Callable[[], object]) -> int:
    """Return how many bytes Python had allocated at once during `action`, beyond those before."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        action()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def _of_version(version: bytes) -> Forger:
    return lambda record: version + record.encode()[2:]


def _with_a_field_more(record: Record) -> bytes:
    assert record.outcome is not None
    return forged([*header_of(record), "a field of tomorrow"], record.outcome.body)


def _with_a_field_less(record: Record) -> bytes:
    assert record.outcome is not None
    return forged(header_of(record)[:-1], record.outcome.body)


def _with_fields_by_name(record: Record) -> bytes:
    named = {str(index): field for index, field in enumerate(header_of(record))}
    return forged(json.dumps(named).encode())


def _with_a_number_for_its_state(record: Record) -> bytes:
    assert record.outcome is not None
    fields = header_of(record)
    return forged([fields[0], 5, *fields[2:]], record.outcome.body)


OTHER_LAYOUTS: Final[dict[str, Forger]] = {
    "of the next version": _of_version(b"u2"),
    "of the last version": _of_version(b"u0"),
    "of a version in capitals": _of_version(b"U1"),
    "of no version": _of_version(b"\0\0"),
    "with a field more": _with_a_field_more,
    "with a field less": _with_a_field_less,
    "with fields by name": _with_fields_by_name,
    "with a number for its state": _with_a_number_for_its_state,
}
"""What other versions of upshot may write, or may have written."""
