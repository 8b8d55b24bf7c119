"""A record: all that a backend keeps about one task id, and its form in bytes.

Layout of an encoded record (little-endian):

    "u2"  version of this layout
    4     CRC-32 of everything after it, so that cut or damaged bytes are noticed
    1     kind: the state in bits 0 to 2, see `_STATES`; bits 3 to 7 tell whether there are
          `queued_at`, `started_at`, `finished_at`, an info and an outcome
    4     attempt
    4     length of the texts
    4     length of the info payload
    8     each moment that there is: a double
    n     texts: UTF-8, with NUL between them, see `_TEXTS`
    …     info payload, then outcome payload

What is before the payloads answers `state`, the timestamps and the rest; payloads are decoded when
somebody asks for the value, by the serializer that their content type names.

A record is read for every result, a thousand at once where there are as many, so that what reading
one takes is most of what a batch takes: hence few calls, each over all that there is.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from operator import itemgetter
from struct import Struct
from struct import error as StructError  # noqa: N812 - it is a class
from typing import Any, Final, NamedTuple
from zlib import crc32

from upshot import states
from upshot.clock import EARLIEST, LATEST
from upshot.errors import CorruptRecordError, InvalidTaskIdError
from upshot.states import MAX_ATTEMPT, State

__all__ = ["MAX_ID_BYTES", "Payload", "Record", "check_task_id", "printable"]

MAX_ID_BYTES: Final = 255
"""The longest task id, in bytes of UTF-8 (contract clause ID-3)."""

_VERSION: Final = b"u2"
_HEAD: Final = Struct("<2sI")
_SEALED: Final = _HEAD.size  # where that begins which the checksum is of, with the kind
_NUMBERS: Final = "BIII"
_COPIED: Final = 4096  # bytes up to which a copy takes less time than a view
_NUL: Final = "\0"  # ids have no control characters; command lines, host names and SQL texts no NUL
_TEXTS: Final = 8  # id, name, queue, worker, token, types of info and outcome, state not in _STATES

_STATES: Final = ("", *(state.value for state in State if state != State.PENDING))
_CODES: Final = {state: code for code, state in enumerate(_STATES) if state}
_QUEUED: Final = 1 << 3
_STARTED: Final = 1 << 4
_FINISHED: Final = 1 << 5
_INFO: Final = 1 << 6
_OUTCOME: Final = 1 << 7
_HAS_OUTCOME: Final = frozenset({State.SUCCESS, State.FAILURE})


class _Kind(NamedTuple):
    """How records of one kind are written and read.

    Attributes:
        state: "" if it is among the texts.
        size: bytes before the texts.
        pack: writes the numbers; moments that there are not are not among them.
        unpack: reads the head and the numbers.
        pick: takes those and a None after them; returns all but the kind, then three moments.
        has_info, has_outcome: whether there is such a payload.
    """

    state: str
    size: int
    pack: Callable[..., bytes]
    unpack: Callable[[bytes], tuple[Any, ...]]
    pick: Callable[[tuple[Any, ...]], tuple[Any, ...]]
    has_info: bool
    has_outcome: bool


def _kinds() -> Iterator[tuple[int, _Kind]]:
    for there in range(8):
        picked, count = [0, 1, 3, 4, 5], 6
        for bit in range(3):
            is_there = there >> bit & 1
            picked.append(count if is_there else -1)
            count += is_there
        numbers = _NUMBERS + "d" * (count - 6)
        pack, whole, pick = (
            Struct("<" + numbers).pack,
            Struct(_HEAD.format + numbers),
            itemgetter(*picked),
        )
        for code, state in enumerate(_STATES):
            for payloads in (0, _INFO, _OUTCOME, _INFO | _OUTCOME):
                yield (
                    payloads | there * _QUEUED | code,
                    _Kind(
                        state,
                        whole.size,
                        pack,
                        whole.unpack_from,
                        pick,
                        has_info=bool(payloads & _INFO),
                        has_outcome=bool(payloads & _OUTCOME),
                    ),
                )


_KINDS: Final = dict(_kinds())
_new: Final[Callable[[type[Any], tuple[Any, ...]], Any]] = tuple.__new__  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
"""Makes records and payloads in two thirds of the time that calling their classes takes."""


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
        token: names the delivery that wrote the record, "" if no worker wrote it. Behind the last
            record of a run, observers may have left notes: see `upshot.observing.notes_of`.
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
        return self.state in states.TERMINAL

    @property
    def rank(self) -> int:
        """How late in the task's life this record is; see `upshot.states`."""
        return states.rank_of(self.state, self.attempt, progress=self.info is not None)

    @property
    def barrier(self) -> int:
        """The lowest rank that may replace this record; see `upshot.states`."""
        return states.barrier_of(self.state, self.attempt, progress=self.info is not None)

    def encode(self) -> bytes:
        """Return the record as bytes, in the layout of this module.

        Raises:
            ValueError: a text holds NUL or half a surrogate pair, or a number is out of range.
        """
        task_id, state, attempt, name, queue, worker, token, *moments, info, outcome = self
        queued_at, started_at, finished_at = moments
        kind = _CODES.get(state, 0)
        other = "" if kind else state
        info_type = outcome_type = ""
        info_body = outcome_body = b""
        there: list[float] = []
        if queued_at is not None:
            kind |= _QUEUED
            there.append(queued_at)
        if started_at is not None:
            kind |= _STARTED
            there.append(started_at)
        if finished_at is not None:
            kind |= _FINISHED
            there.append(finished_at)
        if info is not None:
            kind |= _INFO
            info_type, info_body = info
        if outcome is not None:
            kind |= _OUTCOME
            outcome_type, outcome_body = outcome
        text = _NUL.join((task_id, name, queue, worker, token, info_type, outcome_type, other))
        if text.count(_NUL) != _TEXTS - 1:
            raise ValueError("no text of a record holds NUL")
        texts = text.encode()
        try:
            numbers = _KINDS[kind].pack(kind, attempt, len(texts), len(info_body), *there)
        except (StructError, OverflowError) as exc:
            raise ValueError(f"a number of a record is out of range: {exc}") from exc
        # The outcome, which may be long, is copied once.
        begin = numbers + texts + info_body
        head = _HEAD.pack(_VERSION, crc32(outcome_body, crc32(begin)))
        return b"".join((head, begin, outcome_body))

    @classmethod
    def decode(cls, data: bytes) -> Record:
        """Read an encoded record back.

        Args:
            data: what `encode` wrote; anything else is noticed and refused.

        Raises:
            CorruptRecordError: the bytes are no record, of another version, or damaged.
        """
        try:
            state, size, _, unpack, pick, has_info, has_outcome = _KINDS[data[_SEALED]]
            numbers = (*unpack(data), None)
            version, checksum, attempt, length, info_length, queued, started, ended = pick(numbers)
            if version != _VERSION:
                raise ValueError(f"it is not of version {_VERSION.decode()}")
            end = len(data)
            rest = data[_SEALED:] if end < _COPIED else memoryview(data)[_SEALED:]
            if crc32(rest) != checksum:
                raise ValueError("its checksum is wrong")
            if not 1 <= attempt <= MAX_ATTEMPT:
                raise ValueError("its attempt is out of range")
            if not (
                (queued is None or EARLIEST <= queued <= LATEST)
                and (started is None or EARLIEST <= started <= LATEST)
                and (ended is None or EARLIEST <= ended <= LATEST)
            ):
                raise ValueError("it has a moment that is in no calendar")
            begin = size + length
            cut = begin + info_length
            texts = data[size:begin].decode().split(_NUL, _TEXTS)
            task_id, name, queue, worker, token, info_type, outcome_type, other = texts
            if state and other:
                raise ValueError("it has two states")
            state = state or other
            info = _new(Payload, (info_type, data[begin:cut])) if has_info else None
            outcome = _new(Payload, (outcome_type, data[cut:])) if has_outcome else None
            if cut > end or (info_length and not has_info) or (cut < end and not has_outcome):
                raise ValueError("its payload is cut short or too long")
            if not has_outcome and state in _HAS_OUTCOME:
                raise ValueError(f"it is a {state} without an outcome")
        except LookupError as exc:
            raise CorruptRecordError("not a record: it is of no known kind") from exc
        except (ValueError, StructError) as exc:
            raise CorruptRecordError(f"not a record: {exc}") from exc
        record: Record = _new(
            cls,
            (
                task_id,
                state,
                attempt,
                name,
                queue,
                worker,
                token,
                queued,
                started,
                ended,
                info,
                outcome,
            ),
        )
        return record


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
