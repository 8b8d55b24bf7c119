"""A record: all that a backend keeps about one task id, and its form in bytes.

Layout of an encoded record (network byte order):

    "u1"  version of this layout
    4     CRC-32 of everything after it, so that cut or damaged bytes are noticed
    4     length of the header
    n     header: a UTF-8 JSON array, see `_HEADER`
    …     info payload, then outcome payload; their lengths stand in the header

The header alone answers `state`, the timestamps and the rest; payloads are decoded when somebody
asks for the value, by the serializer that their content type names.
"""

from __future__ import annotations

import itertools
import json
import struct
import unicodedata
import zlib
from typing import Any, Final, NamedTuple

from upshot import clock, states
from upshot.errors import CorruptRecordError, InvalidTaskIdError

__all__ = ["MAX_ID_BYTES", "Payload", "Record", "check_task_id", "printable"]

MAX_ID_BYTES: Final = 255
"""The longest task id, in bytes of UTF-8 (contract clause ID-3)."""

_VERSION: Final = b"u1"
_PREFIX: Final = struct.Struct("!2sII")
_NUMBER: Final = (int, float, type(None))
_METADATA: Final = 10  # fields of the header before those about payloads
_MOMENTS: Final = slice(7, 10)  # where `queued_at`, `started_at` and `finished_at` stand
_HAS_OUTCOME: Final = frozenset({states.State.SUCCESS, states.State.FAILURE})
_HEADER: Final[tuple[tuple[str, tuple[type, ...]], ...]] = (
    ("task_id", (str,)),
    ("state", (str,)),
    ("attempt", (int,)),
    ("name", (str,)),
    ("queue", (str,)),
    ("worker", (str,)),
    ("token", (str,)),
    ("queued_at", _NUMBER),
    ("started_at", _NUMBER),
    ("finished_at", _NUMBER),
    ("info type", (str, type(None))),
    ("info length", (int,)),
    ("outcome type", (str, type(None))),
    ("outcome length", (int,)),
)
_SIGNATURES: Final = frozenset(itertools.product(*(kinds for _, kinds in _HEADER)))
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":"))
_DECODER: Final = json.JSONDecoder()


# Records and payloads are tuples: each read makes one of each, and a frozen dataclass of as many
# fields takes five times as long to make.
class Payload(NamedTuple):
    """Encoded data and the name of what encoded it.

    Attributes:
        content_type: the serializer's content type, such as `"json"`.
        body: what that serializer wrote.
    """

    content_type: str
    body: bytes


class Record(NamedTuple):
    """State, outcome and metadata of one task id at one moment.

    Attributes:
        task_id: 1 to 255 bytes of UTF-8 without control characters.
        state: a name of `upshot.states.State`, or a custom one.
        attempt: 1 for the first run; each retry and each redelivery adds 1.
        name: the task's registered name, "" if unknown (a revocation of an unknown id).
        queue: the queue it was sent to, "" if unknown.
        worker: who ran or runs it, "" before it starts.
        token: names the delivery that wrote the record, "" if no worker wrote it.
        queued_at: seconds since the epoch, None if unknown; likewise `started_at`, `finished_at`.
        info: the last progress report, None if there was none. It survives the task's end.
        outcome: SUCCESS: the value; FAILURE, RETRY: the failure; otherwise None.
    """

    task_id: str
    state: str
    attempt: int = 1
    name: str = ""
    queue: str = ""
    worker: str = ""
    token: str = ""
    queued_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    info: Payload | None = None
    outcome: Payload | None = None

    @property
    def is_terminal(self) -> bool:
        """True for SUCCESS, FAILURE and REVOKED: nothing can follow."""
        return states.is_terminal(self.state)

    @property
    def rank(self) -> int:
        """How late in the task's life this record is; see `upshot.states`."""
        return states.rank_of(self.state, self.attempt, progress=self.info is not None)

    @property
    def barrier(self) -> int:
        """The lowest rank that may replace this record; see `upshot.states`."""
        return states.barrier_of(self.state, self.attempt, progress=self.info is not None)

    def encode(self) -> bytes:
        """Return the record as bytes, in the layout of this module."""
        info, outcome = self.info, self.outcome
        header = _ENCODER.encode(
            [
                self.task_id,
                self.state,
                self.attempt,
                self.name,
                self.queue,
                self.worker,
                self.token,
                self.queued_at,
                self.started_at,
                self.finished_at,
                info and info.content_type,
                len(info.body) if info else 0,
                outcome and outcome.content_type,
                len(outcome.body) if outcome else 0,
            ]
        ).encode()
        body = b"".join((header, info.body if info else b"", outcome.body if outcome else b""))
        checksum = zlib.crc32(body, len(header))
        return _PREFIX.pack(_VERSION, checksum, len(header)) + body

    @classmethod
    def decode(cls, data: bytes) -> Record:
        """Read an encoded record back.

        Args:
            data: what `encode` wrote; anything else is noticed and refused.

        Raises:
            CorruptRecordError: the bytes are no record, of another version, or damaged.
        """
        try:
            fields, end = _read_header(data)
        except (ValueError, TypeError, struct.error, RecursionError) as exc:
            raise CorruptRecordError(f"not a record: {exc}") from exc
        info_type, info_length, outcome_type, outcome_length = fields[_METADATA:]
        cut = end + info_length
        if info_length < 0 or outcome_length < 0 or len(data) != cut + outcome_length:
            raise CorruptRecordError("not a record: its payload is cut short or too long")
        info = None if info_type is None else Payload(info_type, data[end:cut])
        outcome = None if outcome_type is None else Payload(outcome_type, data[cut:])
        return cls._make((*fields[:_METADATA], info, outcome))


def _read_header(data: bytes) -> tuple[list[Any], int]:
    """Return the header's fields, each of its right type, and where the payloads begin."""
    version, checksum, length = _PREFIX.unpack_from(data)
    if version != _VERSION:
        raise ValueError(f"it is not of version {_VERSION.decode()}")
    if zlib.crc32(memoryview(data)[_PREFIX.size :], length) != checksum:
        raise ValueError("its checksum is wrong")
    end = _PREFIX.size + length
    header = data[_PREFIX.size : end].decode()
    fields: list[Any]
    fields, used = _DECODER.raw_decode(header)
    if used != len(header):
        raise ValueError("its header has something after it")
    if type(fields) is not list:
        raise TypeError("its header is not an array")
    if tuple(map(type, fields)) not in _SIGNATURES:
        raise _misfit(fields)
    _check_values(fields)
    if "\\u" in header:  # only then can there be half a surrogate pair, which is no text
        "".join(field for field in fields if isinstance(field, str)).encode()
    return fields, end


def _misfit(fields: list[Any]) -> ValueError:
    """Return the error that says which field is not of its type."""
    if len(fields) != len(_HEADER):
        return ValueError("its header has another length")
    pairs = zip(_HEADER, fields, strict=True)
    name = next(name for (name, kinds), field in pairs if type(field) not in kinds)
    return ValueError(f"its {name} is of the wrong type")


def _check_values(fields: list[Any]) -> None:
    """Refuse fields of the right types that no writer writes and no reader could show."""
    if not 1 <= fields[2] <= states.MAX_ATTEMPT:
        raise ValueError("its attempt is out of range")
    for seconds in fields[_MOMENTS]:
        if seconds is not None and not clock.is_moment(seconds):
            raise ValueError("it has a moment that is in no calendar")
    if fields[1] in _HAS_OUTCOME and fields[12] is None:
        raise ValueError(f"it is a {fields[1]} without an outcome")


def check_task_id(task_id: object) -> str:
    """Return `task_id` if it may name a task.

    Raises:
        InvalidTaskIdError: not a str, empty, over 255 bytes of UTF-8, or holding a control
            character (C0, DEL, C1) or a surrogate. Nothing was sent anywhere.
    """
    if type(task_id) is str and task_id.isascii() and task_id.isprintable():
        if 0 < len(task_id) <= MAX_ID_BYTES:  # as nearly all are
            return task_id
    elif not isinstance(task_id, str):
        raise InvalidTaskIdError(f"a task id is text, not {type(task_id).__name__}")
    if not task_id:
        raise InvalidTaskIdError("a task id has at least one character; got an empty string")
    # 255 characters can be more bytes, but never fewer: look at the length before encoding it.
    if len(task_id) > MAX_ID_BYTES or len(task_id.encode(errors="surrogatepass")) > MAX_ID_BYTES:
        raise InvalidTaskIdError(
            f"a task id has at most {MAX_ID_BYTES} bytes of UTF-8; "
            f"this one has {len(task_id.encode(errors='surrogatepass'))}"
        )
    for position, character in enumerate(task_id):
        if unicodedata.category(character) in ("Cc", "Cs"):
            raise InvalidTaskIdError(
                f"a task id holds no control characters or surrogates; "
                f"this one has U+{ord(character):04X} at position {position}"
            )
    return str(task_id)


def printable(text: str) -> str:
    """Return `text` safe for a log line or a terminal: control characters are escaped.

    What comes from a broker, a backend or a task is written by somebody else; unescaped, it could
    forge log lines or drive the terminal.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )
