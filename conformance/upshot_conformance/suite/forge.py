"""Bytes that no writer of this version makes, put where a record belongs.

The layout is the one of `upshot.record`: version, checksum, numbers, texts, payloads.
"""

from __future__ import annotations

import json
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from upshot.client import ResultClient
from upshot.record import Record
from upshot_conformance.records import success

__all__ = [
    "OTHER_LAYOUTS",
    "TEXTS",
    "Forger",
    "Parts",
    "forged",
    "inject",
    "inject_many",
    "parts_of",
    "peak_of",
]


Forger = Callable[[Record], bytes]
"""Makes bytes from a record that are not quite that record."""

TEXTS: Final = 8
"""Texts of a record: id, name, queue, worker, token, types of info and outcome, custom state."""

_HEAD: Final = struct.Struct("<2sI")
_NUMBERS: Final = struct.Struct("<BIII")
_PATIENCE: Final = 10.0  # seconds that the service has to take the bytes


class Parts(NamedTuple):
    """What an encoded record consists of, as it is written.

    Attributes:
        kind: the state, and which moments and payloads there are.
        attempt, texts_length, info_length: 0 to 2**32 - 1.
        moments: as many as `kind` says, or not.
        texts: UTF-8 with NUL between them, or not.
        payloads: of the info, then of the outcome.
    """

    kind: int
    attempt: int
    texts_length: int
    info_length: int
    moments: tuple[float, ...]
    texts: bytes
    payloads: bytes

    def encode(self, *, version: bytes = b"u2") -> bytes:
        """Return these parts under a right checksum; `b"u2"` is the version that can be read."""
        numbers = _NUMBERS.pack(*self[:4]) + struct.pack(f"<{len(self.moments)}d", *self.moments)
        return forged(numbers + self.texts + self.payloads, version=version)

    def saying(self, number: int, text: str | bytes) -> Parts:
        """Return these parts with another text in one place, and the length of all that is."""
        texts = self.texts.split(b"\0")
        texts[number] = text.encode(errors="surrogatepass") if isinstance(text, str) else text
        return self.telling(b"\0".join(texts))

    def telling(self, texts: bytes) -> Parts:
        """Return these parts with other texts, and their length."""
        return self._replace(texts=texts, texts_length=len(texts))


def parts_of(record: Record) -> Parts:
    """Take the encoded form of a record apart."""
    rest = record.encode()[_HEAD.size :]
    kind, attempt, texts_length, info_length = _NUMBERS.unpack_from(rest)
    count = (kind >> 3 & 7).bit_count()
    begin = _NUMBERS.size + 8 * count
    return Parts(
        kind,
        attempt,
        texts_length,
        info_length,
        struct.unpack_from(f"<{count}d", rest, _NUMBERS.size),
        rest[begin : begin + texts_length],
        rest[begin + texts_length :],
    )


def forged(rest: bytes, *, version: bytes = b"u2") -> bytes:
    """Return bytes that begin as a record does, with a right checksum of the rest."""
    return _HEAD.pack(version, zlib.crc32(rest)) + rest


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
    return lambda record: parts_of(record).encode(version=version)


def _of_the_first_version(record: Record) -> bytes:
    assert record.outcome is not None
    fields = [record.task_id, record.state, 1, "", "", "", "", None, None, record.finished_at]
    header = json.dumps([*fields, None, 0, "json", len(record.outcome.body)]).encode()
    body = header + record.outcome.body
    return struct.pack("!2sII", b"u1", zlib.crc32(body, len(header)), len(header)) + body


def _with_a_text_more(record: Record) -> bytes:
    parts = parts_of(record)
    return parts.telling(parts.texts + b"\0a text of tomorrow").encode()


def _with_a_text_less(record: Record) -> bytes:
    parts = parts_of(record)
    return parts.telling(parts.texts[:-1]).encode()


def _with_texts_by_name(record: Record) -> bytes:
    parts = parts_of(record)
    named = {str(n): text.decode() for n, text in enumerate(parts.texts.split(b"\0"))}
    return parts.telling(json.dumps(named).encode()).encode()


def _of_another_state(record: Record) -> bytes:
    parts = parts_of(record)
    return parts._replace(kind=parts.kind | 0b111).encode()


OTHER_LAYOUTS: Final[dict[str, Forger]] = {
    "of the next version": _of_version(b"u3"),
    "of the last version": _of_version(b"u1"),
    "of the first version": _of_the_first_version,
    "of a version in capitals": _of_version(b"U2"),
    "of no version": _of_version(b"\0\0"),
    "with a text more": _with_a_text_more,
    "with a text less": _with_a_text_less,
    "with texts by name": _with_texts_by_name,
    "of a state of tomorrow": _of_another_state,
}
"""What other versions of upshot may write, or may have written."""
