"""Broken backends: right call by call, wrong in certain sequences, or when calls meet."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import ClassVar

from upshot.backend import Backend, StoredRecord
from upshot.record import Record
from upshot.states import State

from .kinds import Mutant, always

_REQUEST = 0.001  # seconds, as between two requests to a service; in memory there is no gap


class BatchesLookFirst(Mutant):
    """Guards single records on the service, and batches by looking before writing."""

    kills = "ST-4"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        if len(records) == 1:
            return super().store(records, timeout)
        applied: list[bool] = []
        for record in records:
            (body,) = self.bodies([record.key], timeout)
            applies = body is None or Record.decode(body).barrier <= record.rank
            if applies:
                time.sleep(_REQUEST)
                super().store([always(record)], timeout)
            applied.append(applies)
        return applied


class CachesEndsOfTheProcess(Mutant):
    """Keeps ends, which never change, for all clients of the process, until one is forgotten."""

    kills = "RL-2"
    _cache: ClassVar[dict[str, bytes]] = {}

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        missed = [key for key in keys if key not in self._cache]
        found = dict(zip(missed, self.bodies(missed, timeout), strict=True))
        time.sleep(_REQUEST)
        for key, body in found.items():
            if body is not None and Record.decode(body).is_terminal:
                self._cache[key] = body
        return [self._cache.get(key) or found.get(key) for key in keys]

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        for key in keys:
            self._cache.pop(key, None)
        super().delete(keys, timeout)


class RevokesForAMoment(Mutant):
    """Writes a revocation first, and takes it back if the task had ended."""

    kills = "ST-8"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        if len(records) > 1 or records[0].state != State.REVOKED:
            return super().store(records, timeout)
        (before,) = self.bodies([records[0].key], timeout)
        if before is None or not Record.decode(before).is_terminal:
            return super().store(records, timeout)
        super().store([always(records[0])], timeout)
        time.sleep(_REQUEST)
        super().store([always(records[0]._replace(body=before))], timeout)
        return [False]


class RemembersRetries(Mutant):
    """Answers from memory for a moment after a RETRY: the next attempt takes a while."""

    kills = "ST-8"

    def __init__(self, below: Backend) -> None:
        super().__init__(below)
        self._seen: dict[str, tuple[bytes, float]] = {}

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        found = self.bodies(keys, timeout)
        now = time.monotonic()
        for index, (key, body) in enumerate(zip(keys, found, strict=True)):
            seen, until = self._seen.get(key, (b"", 0.0))
            if body is not None and now < until:
                found[index] = seen
            elif body is not None and Record.decode(body).state == State.RETRY:
                self._seen[key] = (body, now + 0.05)
        return found


class ReadsBatchesFromAReplica(Mutant):
    """Reads of several keys go to a copy that is some milliseconds old."""

    kills = "ST-8"

    def __init__(self, below: Backend) -> None:
        super().__init__(below)
        self._copy: dict[str, bytes | None] = {}
        self._copied = 0.0

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        if len(keys) == 1:
            return super().load(keys, timeout)
        if time.monotonic() > self._copied + 0.005:
            self._copy.clear()
            self._copied = time.monotonic()
        missed = [key for key in keys if key not in self._copy]
        self._copy.update(zip(missed, self.bodies(missed, timeout), strict=True))
        return [self._copy[key] for key in keys]


class ClosingRollsBack(Mutant):
    """Leaves its last transaction open, and closing ends it the wrong way."""

    kills = "FT-3"

    def __init__(self, below: Backend) -> None:
        super().__init__(below)
        self._open: list[str] = []

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        applied = super().store(records, timeout)
        self._open = [r.key for r, a in zip(records, applied, strict=True) if a]
        return applied

    def close(self) -> None:
        if self._open:
            self.below.delete(self._open, 5.0)
        super().close()


class ForgetsOnlyWhatItKnows(Mutant):
    """Spares the service what it cannot have: ids that this client has never seen stored."""

    kills = "RL-2"

    def __init__(self, below: Backend) -> None:
        super().__init__(below)
        self._known: set[str] = set()

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        self._known.update(record.key for record in records)
        return super().store(records, timeout)

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        found = super().load(keys, timeout)
        self._known.update(key for key, body in zip(keys, found, strict=True) if body is not None)
        return found

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        super().delete([key for key in keys if key in self._known], timeout)


class ScansItsOwn(Mutant):
    """Enumerates what this client stored."""

    kills = "CP-3"

    def __init__(self, below: Backend) -> None:
        super().__init__(below)
        self._own: set[str] = set()

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        self._own.update(record.key for record in records)
        return super().store(records, timeout)

    def scan(self, prefix: str, timeout: float) -> Iterator[str]:
        return (key for key in super().scan(prefix, timeout) if key in self._own)


class OldTimersEndNewRecords(Mutant):
    """Keeps the time of expiry beside the record, and does not replace it by never or later."""

    kills = "EX-4"
    _times: ClassVar[dict[str, float]] = {}

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        for record in records:
            if record.expires is not None:
                self._times.setdefault(record.key, time.monotonic() + record.expires)
        return super().store(records, timeout)

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        now = time.monotonic()
        found = super().load(keys, timeout)
        return [
            body if self._times.get(key, now) >= now else None
            for key, body in zip(keys, found, strict=True)
        ]

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        for key in keys:
            self._times.pop(key, None)
        super().delete(keys, timeout)


class BatchGuardsByWhatWasThere(Mutant):
    """Decides about a whole batch before it writes any of it."""

    kills = "ST-3"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        if len(records) == 1:
            return super().store(records, timeout)
        found = self.bodies([record.key for record in records], timeout)
        applied = [
            body is None or Record.decode(body).barrier <= record.rank
            for record, body in zip(records, found, strict=True)
        ]
        super().store([always(r) for r, a in zip(records, applied, strict=True) if a], timeout)
        return applied


class ForgettingRewritesTheRest(Mutant):
    """Keeps records in one file: to forget is to write the others again."""

    kills = "RL-2"

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        rest = [key for key in self.scan(keys[0][:-2], timeout) if key not in keys]
        found = self.bodies(rest, timeout)
        super().delete(keys, timeout)
        time.sleep(_REQUEST)
        for key, body in zip(rest, found, strict=True):
            if body is not None:
                record = Record.decode(body)
                again = StoredRecord(
                    key=key, body=body, rank=record.rank, barrier=record.barrier, expires=600,
                    task_id=record.task_id, state=record.state, name=record.name, reply_to="",
                )  # fmt: skip
                super().store([always(again)], timeout)
