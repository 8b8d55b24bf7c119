"""All records of a namespace from one service into another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import final

from upshot.archive.restoring import Batch, Restored, Shelf
from upshot.client import ResultClient
from upshot.envelope import AS_SET
from upshot.errors import ConfigError, UpshotError
from upshot.record import Record
from upshot.states import TERMINAL

__all__ = ["Migration", "migrate"]


def _nobody(*_: object) -> None:
    """Be told of something, and make nothing of it."""


@final
@dataclass(slots=True, kw_only=True)
class Migration:
    """What `migrate` did, and what it found when it looked again.

    Attributes:
        copied: what became of the records when they were given to the target.
        unreadable: records of the source that cannot be read; they were not copied.
        unfinished: records of tasks that had not ended: the last word comes later.
        verified: records of the source that the target holds, the same to the last byte.
        ahead: records that are no outcomes, and further on at the target.
        missing: records that the target does not hold, or that it cannot read.
        different: outcomes of which the target holds other ones.
    """

    copied: Restored = field(default_factory=Restored)
    unreadable: int = 0
    unfinished: int = 0
    verified: int = 0
    ahead: int = 0
    missing: int = 0
    different: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether the target has all that the source had when it was looked at last."""
        return not (self.unreadable or self.missing or self.different or self.copied.refused)


def migrate(
    source: ResultClient,
    target: ResultClient,
    *,
    expires: float | None = AS_SET,
    trouble: Callable[[str, str], object] = _nobody,
    progress: Callable[[Migration], object] = _nobody,
) -> Migration:
    """Copy all records of a namespace, in batches, and compare both sides at the end.

    Nothing is removed from the source, and what the target holds already stays, as `restore` says:
    after an interruption, or while tasks still run, it is done again and copies what is missing.

    Args:
        source: where from; it must be able to enumerate.
        target: where to.
        expires: seconds to keep outcomes at the target, from now on; None for ever, AS_SET as
            the target is set. What is left of their time at the source, no service tells.
        trouble: is told a task id and why its record is not at the target.
        progress: is told after each batch how far it is.

    Raises:
        ConfigError: both are one namespace of one service.
        UnsupportedError: the source cannot enumerate; the target carries results, or cannot
            expire records.
        ServiceError: one of the two could not do it in time. What was copied by then is safe.
    """
    if (source.url.identity, source.namespace) == (target.url.identity, target.namespace):
        raise ConfigError(f"{source.url} and {target.url} are one place: there is nothing to move")
    done = Migration()
    shelf = Shelf(target, expires)
    done.copied = shelf.done

    def unreadable(error: UpshotError) -> None:
        done.unreadable += 1
        trouble(str(getattr(error, "task_id", "")), str(error))

    for batch in _batches(source.scan(unreadable)):
        done.unfinished += sum(record.state not in TERMINAL for record in batch)
        shelf.put(batch, lambda record, error: trouble(record.task_id, str(error)))
        progress(done)
    for batch in _batches(source.scan()):
        _compare(done, target, batch, trouble)
        progress(done)
    return done


def _compare(
    done: Migration,
    target: ResultClient,
    batch: Sequence[Record],
    trouble: Callable[[str, str], object],
) -> None:
    """Count how many of the source's records the target holds."""
    there = target.load_many([record.task_id for record in batch])
    for record, found in zip(batch, there, strict=True):
        if found == record:
            done.verified += 1
        elif not isinstance(found, Record):
            done.missing += 1
            trouble(record.task_id, "it is not there" if found is None else str(found))
        elif record.state not in TERMINAL and found.rank >= record.rank:
            done.ahead += 1
        else:
            done.different += 1
            trouble(record.task_id, f"another one is there, which is {found.state}")


def _batches(records: Iterable[Record]) -> Iterator[Batch]:
    batch = Batch()
    for record in records:
        if batch.add(record):
            yield batch
            batch = Batch()
    if batch:
        yield batch
