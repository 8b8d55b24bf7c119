"""Histories: what concurrent clients called, and what they were told.

A `Recorder` notes each call on a client. Histories of several threads and processes are put
together by their times: the monotonic clock is one for all processes of a system on Linux and
macOS, and is not elsewhere. A saved one can be checked again, anywhere, with

    python -m upshot_conformance.histories FILE

which prints why it is impossible and ends with 1, or with 0 if it is not.

A file has one JSON object per line: a header, the operations, and a footer, without which the file
is not whole and is refused.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Generic, NamedTuple, TypeVar, cast

from upshot import clock
from upshot.client import ResultClient
from upshot.errors import InvalidTaskIdError, PayloadTooLargeError, UnsupportedError, UpshotError
from upshot.record import Record
from upshot_conformance.linearizability import Action, Operation, Outcome, Violation, check

__all__ = ["SCHEMA", "History", "HistoryError", "Recorder", "has_one_clock", "main", "mark_of"]

SCHEMA: Final = "upshot-history/1"
"""What the header of a file says of its form."""

T = TypeVar("T")

_REFUSED: Final = (InvalidTaskIdError, PayloadTooLargeError, UnsupportedError)
"""Errors that come before any I/O: such a call did nothing."""


class HistoryError(UpshotError, ValueError):
    """A file holds no whole history; the message says what is wrong."""


def has_one_clock() -> bool:
    """Tell whether the times of two processes of this system can be compared."""
    return sys.platform in ("linux", "darwin")


@dataclass(frozen=True, slots=True)
class History:
    """What was called on one backend.

    Attributes:
        label: how reports call the backend.
        seed: what the calls were drawn from.
        visibility: seconds after which the backend promises that everybody sees a write.
        operations: the calls, in any order.
    """

    label: str
    seed: int
    visibility: float
    operations: tuple[Operation, ...]

    def violations(self) -> list[Violation]:
        """Return for each id whose answers are impossible why they are."""
        return check(self.operations, visibility=self.visibility)

    def save(self, path: Path) -> None:
        """Write a file, whose folder is made if need be."""
        header = {
            "schema": SCHEMA,
            "label": self.label,
            "seed": self.seed,
            "visibility": self.visibility,
            "clock": f"monotonic, seconds, {sys.platform}",
        }
        footer = {"complete": True, "operations": len(self.operations)}
        ordered = sorted(self.operations, key=lambda operation: operation.invoked)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8") as file:
            for line in (header, *map(asdict, ordered), footer):
                file.write(json.dumps(line, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> History:
        """Read a file.

        Raises:
            HistoryError: it is no history, of another form, or not whole.
            OSError: it cannot be read.
        """
        try:
            found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        except ValueError as exc:
            raise HistoryError(f"{path} is no history, or is cut off: {exc}") from exc
        lines = [cast("dict[str, Any]", each) for each in found if isinstance(each, dict)]
        if not lines or len(lines) < len(found) or lines[0].get("schema") != SCHEMA:
            raise HistoryError(f"{path} does not begin with the header of {SCHEMA}")
        header, footer = lines[0], lines[-1]
        if footer.get("complete") is not True:
            raise HistoryError(f"{path} has no footer: it is not whole")
        if footer.get("operations") != len(lines) - 2:
            raise HistoryError(f"{path} has lost some of its lines")
        try:
            operations = tuple(Operation(**line) for line in lines[1:-1])
            return cls(header["label"], header["seed"], header["visibility"], operations)
        except (TypeError, KeyError) as exc:
            raise HistoryError(f"{path} has a line of another form: {exc}") from exc


class Recorder:
    """Notes the calls on a client; usable from any thread.

    Args:
        client: what is called.
        name: how explanations call whoever calls.

    Attributes:
        operations: the calls that have returned.
    """

    def __init__(self, client: ResultClient, name: str) -> None:
        self._client = client
        self._name = name
        self.operations: list[Operation] = []

    def store(self, records: Sequence[Record]) -> None:
        """Store records as a batch, whose answers count one by one."""
        call = _called(lambda: self._client.store_many(records))
        for record, applied in zip(records, call.answer or [False] * len(records), strict=True):
            self._note(
                "store",
                record.task_id,
                call,
                mark=mark_of(record),
                rank=record.rank,
                barrier=record.barrier,
                applied=applied,
                note=_kind(record),
            )

    def load(self, task_ids: Sequence[str]) -> None:
        """Read records as a batch, or one, whose answers count one by one."""
        if len(task_ids) == 1:
            call = _called(lambda: [self._client.load(task_ids[0])])
        else:
            call = _called(lambda: _records(self._client.load_many(task_ids)))
        for task_id, record in zip(task_ids, call.answer or [None] * len(task_ids), strict=True):
            if record:
                self._note("load", task_id, call, mark=mark_of(record), note=_kind(record))
            else:
                self._note("load", task_id, call)

    def forget(self, task_id: str) -> None:
        """Forget a task."""
        call = _called(lambda: self._client.forget([task_id]))
        self._note("forget", task_id, call)

    def _note(
        self,
        action: Action,
        task_id: str,
        call: _Call[Any],
        **details: Any,
    ) -> None:
        self.operations.append(
            Operation(
                client=self._name,
                process=os.getpid(),
                thread=threading.get_native_id(),
                action=action,
                task_id=task_id,
                invoked=call.invoked,
                returned=call.returned,
                outcome=call.outcome,
                **details,
            )
        )


def mark_of(record: Record) -> str:
    """Return a name of a record that no other has, not even one that differs in a bit."""
    return f"{record.token}~{zlib.crc32(record.encode()):08x}"


def _kind(record: Record) -> str:
    return f"{record.state} of attempt {record.attempt}"


class _Call(NamedTuple, Generic[T]):
    """What became of a call, and when it began and ended."""

    answer: T | None
    outcome: Outcome
    invoked: float
    returned: float


def _called(action: Callable[[], T]) -> _Call[T]:
    invoked = clock.monotonic()
    answer: T | None = None
    outcome: Outcome = "ok"
    try:
        answer = action()
    except _REFUSED:
        outcome = "fail"
    except UpshotError:
        outcome = "unknown"
    return _Call(answer, outcome, invoked, clock.monotonic())


def _records(found: Iterable[Record | UpshotError | None]) -> list[Record | None]:
    records: list[Record | None] = []
    for each in found:
        if isinstance(each, UpshotError):
            raise each
        records.append(each)
    return records


def main(arguments: Sequence[str] | None = None) -> int:
    """Check a saved history; return the exit code.

    0: it is possible. 1: it is not. 2: the file cannot be read.
    """
    parser = argparse.ArgumentParser(prog="python -m upshot_conformance.histories")
    parser.add_argument("file", type=Path, help="a history that a run of the suite has saved")
    path = cast("Path", parser.parse_args(arguments).file)
    try:
        history = History.load(path)
    except (HistoryError, OSError) as exc:
        sys.stderr.write(f"{exc}\n")
        return 2
    violations = history.violations()
    for violation in violations:
        sys.stdout.write(f"{violation}\n")
    ids = {operation.task_id for operation in history.operations}
    sys.stdout.write(
        f"{history.label}, seed {history.seed}: {len(history.operations)} operations on "
        f"{len(ids)} ids, {len(violations)} of them impossible\n"
    )
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
