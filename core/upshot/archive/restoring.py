"""Records into a service, under its guard: what is there stays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, final

from upshot.archive.lines import from_line
from upshot.backend import StoredRecord
from upshot.client import ResultClient
from upshot.envelope import AS_SET, unfinished
from upshot.errors import (
    DecodeError,
    InvalidTaskIdError,
    PayloadTooLargeError,
    UnsupportedError,
    UpshotError,
)
from upshot.reading import BATCH
from upshot.record import Record
from upshot.states import TERMINAL, State

__all__ = ["Batch", "Restored", "Shelf", "restore"]

_MOST_BYTES: Final = 32 * 2**20
"""Of payloads in one batch, and one record more: 1000 records of usual length are shorter."""


def _nobody(*_: object) -> None:
    """Be told of something, and make nothing of it."""


@final
@dataclass(slots=True, kw_only=True)
class Restored:
    """What became of records that were given to a service; their sum is all of them.

    Attributes:
        stored: written now.
        present: there already, the same to the last byte; nothing was written.
        kept: left as they are, because what is there is an outcome, or further on.
        refused: not taken by the service, or no records at all.
    """

    stored: int = 0
    present: int = 0
    kept: int = 0
    refused: int = 0

    @property
    def total(self) -> int:
        """How many there were."""
        return self.stored + self.present + self.kept + self.refused


@final
class Batch(list[Record]):
    """Records that go together: `BATCH` at most, and few if they are long."""

    def __init__(self) -> None:
        super().__init__()
        self._bytes = 0

    def add(self, record: Record) -> bool:
        """Take one more; True if it is the last."""
        self.append(record)
        self._bytes += sum(len(each.body) for each in (record.info, record.outcome) if each)
        return len(self) == BATCH or self._bytes >= _MOST_BYTES


@final
class Shelf:
    """Puts records into one service, under its guard.

    Args:
        client: where to.
        expires: seconds to keep an outcome from now on; None for ever, AS_SET as the client is
            set. What is no outcome is kept as long as a task that has not ended.

    Raises:
        UnsupportedError: the service carries results, and keeps none.
    """

    def __init__(self, client: ResultClient, expires: float | None) -> None:
        if client.backend.reply_to:
            raise UnsupportedError(
                f"{client.url} carries results to whoever submitted the task: it keeps no records"
            )
        self._client = client
        self._outcome = client.expires if expires is AS_SET else expires
        self._unfinished = unfinished(self._outcome)
        self.done = Restored()

    def put(
        self, records: Sequence[Record], refused: Callable[[Record, UpshotError], object]
    ) -> None:
        """Store what is not there yet, and count; `refused` is told what cannot be stored."""
        there = self._client.load_many([record.task_id for record in records])
        new = [record for record, found in zip(records, there, strict=True) if found != record]
        self.done.present += len(records) - len(new)
        sealed = list(self._sealed(new, refused))
        applied = self._client.store_encoded([envelope for _, envelope in sealed])
        left = [record for (record, _), done in zip(sealed, applied, strict=True) if not done]
        self.done.stored += len(sealed) - len(left)
        for record, found in zip(
            left, self._client.load_many([record.task_id for record in left]), strict=True
        ):
            if found == record:  # whoever else stores the same was faster
                self.done.present += 1
            else:
                self.done.kept += 1

    def _sealed(
        self, records: Iterable[Record], refused: Callable[[Record, UpshotError], object]
    ) -> Iterator[tuple[Record, StoredRecord]]:
        client = self._client
        for record in records:
            is_outcome = record.state in TERMINAL and record.state != State.REVOKED
            expires = self._outcome if is_outcome else self._unfinished
            try:
                yield (
                    record,
                    client.envelopes.seal(record, client.capabilities, expires=expires, as_is=True),
                )
            except (PayloadTooLargeError, InvalidTaskIdError) as exc:
                self.done.refused += 1
                refused(record, exc)


def restore(
    client: ResultClient,
    lines: Iterable[str | bytes | DecodeError],
    *,
    expires: float | None = AS_SET,
    keep_going: bool = False,
    refused: Callable[[int, UpshotError], object] = _nobody,
    progress: Callable[[Restored], object] = _nobody,
) -> Restored:
    """Store the records of lines that `to_line` wrote, in batches; empty lines are passed over.

    What is stored already stays as it is, unless it is of an earlier time in the task's life. So
    it is safe to do this again after it was interrupted.

    Args:
        client: where to.
        lines: at most `longest_line` characters each: whoever reads them from a file sees to it,
            and may give an error in the place of one that cannot be held.
        expires: seconds to keep outcomes, from now on; None for ever, AS_SET as the client is set.
            What is no outcome is kept as long as a task that has not ended.
        keep_going: pass over what cannot be stored; otherwise it is the end.
        refused: is told of each such line: its number, from 1 on, and why.
        progress: is told after each batch how far it is.

    Raises:
        DecodeError, PayloadTooLargeError: a line is no record, or the service does not take it;
            the message has its number. What stands before it has been stored.
        UnsupportedError: the service carries results, or cannot expire records.
        ServiceError: the service could not do it in time.
    """
    shelf = Shelf(client, expires)
    batch = Batch()
    numbers: dict[int, int] = {}
    failed: dict[int, UpshotError] = {}

    def refuse(number: int, error: UpshotError) -> None:
        refused(number, error)
        if not keep_going:
            failed[number] = _of_line(number, error)

    def flush() -> None:
        nonlocal batch
        shelf.put(batch, lambda record, error: refuse(numbers[id(record)], error))
        batch = Batch()
        numbers.clear()
        progress(shelf.done)
        if failed:
            raise failed[min(failed)]

    for number, line in enumerate(lines, start=1):
        is_full = False
        try:
            record = _read(line)
        except DecodeError as exc:
            shelf.done.refused += 1
            refuse(number, exc)
        else:
            if record is None:
                continue
            is_full = batch.add(record)
            numbers[id(record)] = number
        if is_full or failed:
            flush()
    flush()
    return shelf.done


def _read(line: str | bytes | DecodeError) -> Record | None:
    """Return the record of a line, None for an empty one; raise why it is none."""
    if isinstance(line, DecodeError):
        raise line
    return from_line(line) if line.strip() else None


def _of_line(number: int, error: UpshotError) -> UpshotError:
    """Return the error with the number of its line in front."""
    kind = PayloadTooLargeError if isinstance(error, PayloadTooLargeError) else DecodeError
    return kind(f"line {number}: {error}")
