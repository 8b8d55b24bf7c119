"""Items of a stream: what a task yields, each a record of its own beside that of the task.

An item is stored as a terminal record, so the first one stored under an index stays for good, and
whoever waits for it is woken as for the end of a task. It names its index where other records have
their progress. The record that ends the task says how many items there are: in the content type of
its outcome, "json#12", which costs the records of other tasks nothing.
"""

from __future__ import annotations

from typing import Final

from upshot.content_types import plain_type
from upshot.record import Payload, Record
from upshot.states import State

__all__ = ["count_of", "counted", "index_of", "is_plain", "item"]

_INDEX: Final = "#item"  # the content type of an index, which no serializer has
_COUNT: Final = "#"
_LONGEST: Final = 18  # digits of a number that is one of ours


def item(task_id: str, index: int, payload: Payload, *, name: str = "") -> Record:
    """Return the record of one item.

    Args:
        task_id: of the task that yielded it.
        index: 0 for the first item.
        payload: the encoded item.
        name: the task's registered name.
    """
    return Record(
        task_id=task_id,
        state=State.SUCCESS,
        name=name,
        info=Payload(_INDEX, b"%d" % index),
        outcome=payload,
    )


def index_of(record: Record) -> int | None:
    """Return the index of an item; None for the record of a task."""
    if record.info is None or record.info.content_type != _INDEX:
        return None
    return _number(record.info.body.decode("latin-1"))


def counted(record: Record, count: int) -> Record:
    """Return the record that ends a stream of so many items; as it is if it has no outcome."""
    if record.outcome is None:
        return record
    content_type, body = record.outcome
    return record._replace(outcome=Payload(f"{content_type}{_COUNT}{count}", body))


def count_of(record: Record) -> int | None:
    """Return how many items the task had stored when it ended; None if its record does not say.

    That of a task which does not stream never does, nor that of one which was revoked, or whose
    worker was lost.
    """
    if record.outcome is None:
        return None
    return _number(plain_type(record.outcome.content_type).partition(_COUNT)[2])


def is_plain(record: Record) -> bool:
    """Tell whether a record with an outcome is of a task that did not stream; quicker to know."""
    return record.outcome is not None and _COUNT not in record.outcome[0]


def _number(text: str) -> int | None:
    """Return a number that was written here; None for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _LONGEST else None
