"""Records for tests, and their values."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any, Final

from upshot import clock
from upshot.backend import StoredRecord
from upshot.client import ResultClient
from upshot.envelope import AS_SET
from upshot.items import counted
from upshot.outcome import decode_value, encode_failure, encode_value
from upshot.record import Record
from upshot.serializers import Codecs, JsonSerializer
from upshot.states import State

__all__ = [
    "CODECS",
    "TERMINAL",
    "ended",
    "failure",
    "new_id",
    "revoked",
    "streamed",
    "success",
    "unfinished",
    "value_of",
    "yielded",
]

CODECS: Final = Codecs({"json": JsonSerializer()})
"""What outcomes are written and read with: the default serializer."""

TERMINAL: Final = (State.SUCCESS, State.FAILURE, State.REVOKED)


def new_id() -> str:
    """Return a task id that nobody used before."""
    return str(uuid.uuid4())


def success(task_id: str, value: object, *, attempt: int = 1) -> Record:
    """Return the record of a task that ended with `value`."""
    return Record(
        task_id=task_id,
        state=State.SUCCESS,
        attempt=attempt,
        finished_at=clock.now(),
        outcome=encode_value(CODECS, value),
    )


def yielded(
    client: ResultClient,
    task_id: str,
    values: Iterable[object],
    *,
    start: int = 0,
    expires: float | None = AS_SET,
) -> list[StoredRecord]:
    """Return what a worker stores of a task that yields `values`, the first one as item `start`."""
    return [
        client.envelopes.seal_item(
            task_id, index, encode_value(CODECS, value), client.capabilities, expires=expires
        )
        for index, value in enumerate(values, start)
    ]


def streamed(record: Record, count: int) -> Record:
    """Return the record of a task that ended after it had yielded `count` items."""
    return counted(record, count)


def failure(task_id: str, exc: BaseException, *, attempt: int = 1) -> Record:
    """Return the record of a task that ended with `exc`."""
    return Record(
        task_id=task_id,
        state=State.FAILURE,
        attempt=attempt,
        finished_at=clock.now(),
        outcome=encode_failure(CODECS, exc),
    )


def revoked(task_id: str) -> Record:
    """Return the record of a revocation."""
    return Record(task_id=task_id, state=State.REVOKED, finished_at=clock.now())


def unfinished(task_id: str, state: str = State.STARTED, *, attempt: int = 1) -> Record:
    """Return a record that is not terminal."""
    return Record(task_id=task_id, state=state, attempt=attempt, started_at=clock.now())


def ended(task_id: str, state: str, *, attempt: int = 1) -> Record:
    """Return a record of any terminal state."""
    if state == State.SUCCESS:
        return success(task_id, f"of {task_id}", attempt=attempt)
    if state == State.FAILURE:
        return failure(task_id, ValueError(f"of {task_id}"), attempt=attempt)
    return revoked(task_id)


def value_of(record: Record | None) -> Any:
    """Return the value that a record of SUCCESS holds."""
    assert record is not None, "there is no record"
    assert record.outcome is not None, f"a record of {record.state} has no value"
    return decode_value(CODECS, record.outcome)
