"""Broken backends: which record is kept."""

from __future__ import annotations

import time
from collections.abc import Sequence

from upshot.backend import Backend, StoredRecord
from upshot.record import Record
from upshot.states import NEVER, State, is_terminal

from .kinds import (
    ChangesRecords,
    Mutant,
    always,
)


class KeepsOnlyTheEnd(Mutant):
    kills = "ST-1"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        super().store([each for each in records if is_terminal(each.state)], timeout)
        return [True] * len(records)


class LateStartOverwrites(ChangesRecords):
    kills = "ST-2"

    def changed(self, record: StoredRecord) -> StoredRecord:
        return always(record) if record.state == State.STARTED else record


class LastTerminalWins(ChangesRecords):
    kills = "ST-3"

    def changed(self, record: StoredRecord) -> StoredRecord:
        return always(record) if is_terminal(record.state) else record


class AlwaysSaysApplied(Mutant):
    kills = "ST-3"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        super().store(records, timeout)
        return [True] * len(records)


class OlderAttemptReplaces(ChangesRecords):
    kills = "ST-5"

    def changed(self, record: StoredRecord) -> StoredRecord:
        return record if is_terminal(record.state) else record._replace(barrier=0)


class RevocationStoredAsSuccess(ChangesRecords):
    kills = "ST-6"

    def changed(self, record: StoredRecord) -> StoredRecord:
        if record.state != State.REVOKED:
            return record
        succeeded = Record.decode(record.body)._replace(state=State.SUCCESS)
        return record._replace(body=succeeded.encode())


class StateBeforePayload(Mutant):
    kills = "ST-7"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        hollow = [
            each._replace(body=Record.decode(each.body)._replace(outcome=None).encode())
            for each in records
        ]
        applied = super().store(hollow, timeout)
        time.sleep(0.002)
        super().store([always(r) for r, a in zip(records, applied, strict=True) if a], timeout)
        return applied


class GuardInTwoSteps(Mutant):
    kills = "ST-4"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        applied: list[bool] = []
        for record in records:
            (body,) = self.bodies([record.key], timeout)
            time.sleep(0.0005)
            applies = body is None or Record.decode(body).barrier <= record.rank
            if applies:
                super().store([always(record)], timeout)
            applied.append(applies)
        return applied


class RemembersWhatItRead(Mutant):
    kills = "ST-8"

    def __init__(self, below: Backend) -> None:
        super().__init__(below)
        self._cache: dict[str, bytes | None] = {}

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        for key, body in zip(keys, self.bodies(keys, timeout), strict=True):
            self._cache.setdefault(key, body)
        return [self._cache[key] for key in keys]


class RevocationCanBeRepeated(ChangesRecords):
    kills = "ST-3"

    def changed(self, record: StoredRecord) -> StoredRecord:
        return record._replace(barrier=record.rank) if record.state == State.REVOKED else record


class EndFollowsRevocation(ChangesRecords):
    kills = "ST-6"

    def changed(self, record: StoredRecord) -> StoredRecord:
        return record._replace(barrier=0) if record.state == State.REVOKED else record


class RevocationOverwritesTheEnd(ChangesRecords):
    kills = "ST-6"

    def changed(self, record: StoredRecord) -> StoredRecord:
        return always(record) if record.state == State.REVOKED else record


class RunningTasksCannotBeRevoked(ChangesRecords):
    kills = "ST-6"

    def changed(self, record: StoredRecord) -> StoredRecord:
        return record._replace(rank=0) if record.state == State.REVOKED else record


class DemandsMoreThanTheBarrier(ChangesRecords):
    kills = "ST-5"

    def changed(self, record: StoredRecord) -> StoredRecord:
        return record._replace(rank=record.rank - 1)


class RetryIsTheEnd(ChangesRecords):
    kills = "ST-5"

    def changed(self, record: StoredRecord) -> StoredRecord:
        return record._replace(barrier=NEVER) if record.state == State.RETRY else record


class KeepsTheFirstBarrier(Mutant):
    kills = "ST-3"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        found = self.bodies([record.key for record in records], timeout)
        kept = [
            record if body is None else record._replace(barrier=Record.decode(body).barrier)
            for record, body in zip(records, found, strict=True)
        ]
        return super().store(kept, timeout)


class RefusesAndReplaces(Mutant):
    kills = "ST-3"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        applied = super().store(records, timeout)
        refused = [r for r, a in zip(records, applied, strict=True) if not a]
        super().store(list(map(always, refused)), timeout)
        return applied


class SameStateRefreshes(Mutant):
    kills = "ST-3"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        found = self.bodies([record.key for record in records], timeout)
        same = [
            always(record) if body and Record.decode(body).state == record.state else record
            for record, body in zip(records, found, strict=True)
        ]
        return super().store(same, timeout)


class GuardsTheFirstOfABatch(Mutant):
    kills = "ST-3"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        return super().store([*records[:1], *map(always, records[1:])], timeout)


class LastOfABatchWins(Mutant):
    kills = "ST-3"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        last = {record.key: record for record in records}
        applied = dict(zip(last, super().store(list(last.values()), timeout), strict=True))
        return [applied[record.key] for record in records]


class KnowsNoOtherStates(Mutant):
    kills = "ST-1"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        known = [record for record in records if record.state in set(State)]
        applied = iter(super().store(known, timeout))
        return [record.state not in set(State) or next(applied) for record in records]


class _ChangesRecord(ChangesRecords):
    def edited(self, record: Record) -> Record:
        return record

    def changed(self, record: StoredRecord) -> StoredRecord:
        return record._replace(body=self.edited(Record.decode(record.body)).encode())


class RoundsTimesToMilliseconds(_ChangesRecord):
    kills = "ST-1"

    def edited(self, record: Record) -> Record:
        started = record.started_at
        return record._replace(started_at=None if started is None else round(started, 3))


class DropsProgressInTheEnd(_ChangesRecord):
    kills = "ST-1"

    def edited(self, record: Record) -> Record:
        return record._replace(info=None) if record.is_terminal else record


class LongPayloadsComeLater(StateBeforePayload):
    kills = "ST-7"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        if all(len(record.body) < 65536 for record in records):
            return self.below.store(records, timeout)
        return super().store(records, timeout)
