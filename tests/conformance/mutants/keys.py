"""Broken backends: idempotency keys."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from upshot.backend import StoredRecord
from upshot.record import Record
from upshot.states import State

from .kinds import ChangesKeys, ChangesRecords, Mutant, always


def is_claim(key: str) -> bool:
    """Tell whether it is a claim that is stored under a key."""
    return re.search("=[0-9a-f]{64}$", key) is not None


class ClaimsInTwoSteps(Mutant):
    kills = "KY-1"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        applied: list[bool] = []
        for record in records:
            if not is_claim(record.key):
                applied += super().store([record], timeout)
                continue
            (body,) = self.bodies([record.key], timeout)
            time.sleep(0.0005)
            applies = body is None or Record.decode(body).barrier <= record.rank
            if applies:
                super().store([always(record)], timeout)
            applied.append(applies)
        return applied


class GrantsEverything(Mutant):
    kills = "KY-1"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        applied = super().store(records, timeout)
        pairs = zip(records, applied, strict=True)
        return [was or is_claim(record.key) for record, was in pairs]


class LastClaimWins(ChangesRecords):
    kills = "KY-1"

    def changed(self, record: StoredRecord) -> StoredRecord:
        return always(record) if is_claim(record.key) else record


class KeepsKeysForEver(ChangesRecords):
    kills = "KY-2"

    def changed(self, record: StoredRecord) -> StoredRecord:
        return record._replace(expires=None) if is_claim(record.key) else record


class DropsKeysSoon(ChangesRecords):
    kills = "KY-2"

    def changed(self, record: StoredRecord) -> StoredRecord:
        is_short = is_claim(record.key) and record.expires is not None and record.expires < 60
        return record._replace(expires=0.1) if is_short else record


class NeverReleases(Mutant):
    kills = "KY-2"

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        super().delete([key for key in keys if not is_claim(key)], timeout)


class CutsKeysOfClaims(ChangesKeys):
    kills = "KY-3"

    def other(self, key: str) -> str:
        return key[:-64] if is_claim(key) else key


class TakesOverAtOnce(ChangesRecords):
    kills = "KY-4"

    def changed(self, record: StoredRecord) -> StoredRecord:
        is_open = is_claim(record.key) and record.state == State.STARTED
        return record._replace(barrier=0) if is_open else record


class FirstClaimIsFinal(ChangesRecords):
    kills = "KY-4"

    def changed(self, record: StoredRecord) -> StoredRecord:
        late = is_claim(record.key) and Record.decode(record.body).attempt > 1
        return record._replace(rank=0) if late else record
