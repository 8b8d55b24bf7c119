"""Broken backends: what becomes of many at once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from upshot.backend import Capabilities, StoredRecord
from upshot.record import Record

from .kinds import Mutant, always

_FEW = 10
_NO_TRIPS = "elsewhere there are no round trips"


class AnswersInOrderOfKeys(Mutant):
    kills = "BT-1"

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        return super().load(sorted(keys), timeout)


class AnswersEachKeyOnce(Mutant):
    kills = "BT-1"

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        rest = dict(zip(keys, super().load(keys, timeout), strict=True))
        return [rest.pop(key, None) for key in keys]


class AnswersDistinctKeys(Mutant):
    kills = "BT-1"

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        distinct = list(dict.fromkeys(keys))
        found = super().load(distinct, timeout)
        return [*found, *([None] * (len(keys) - len(distinct)))]


class LeavesUnknownKeysOut(Mutant):
    kills = "BT-1"

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        known = [body for body in super().load(keys, timeout) if body is not None]
        return [*known, *([None] * (len(keys) - len(known)))]


class TakesLimitedManyKeys(Mutant):
    kills = "BT-1"

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        return [*super().load(keys[:999], timeout), *([None] * len(keys[999:]))]


class CutsWithoutOverlap(Mutant):
    kills = "BT-1"

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        found: list[bytes | Exception | None] = [None] * len(keys)
        for start in range(0, len(keys), 512):
            part = keys[start : start + 512]
            found[start : start + len(part)] = super().load(part[:511], timeout)
        return (found + [None] * len(keys))[: len(keys)]


class ForgetsAFew(Mutant):
    kills = "BT-1"

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        super().delete(keys[:500], timeout)


class OneQueryPerKey(Mutant):
    kills = "BT-2"
    network_only = _NO_TRIPS

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        return [body for key in keys for body in self.bodies([key], timeout)]


class OneCommandPerRecord(Mutant):
    kills = "BT-2"
    network_only = _NO_TRIPS

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        return [applied for each in records for applied in self.below.store([each], timeout)]


class ForgetsAFewAtATime(Mutant):
    kills = "BT-2"
    network_only = _NO_TRIPS

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        for start in range(0, len(keys), _FEW):
            super().delete(keys[start : start + _FEW], timeout)


class StoresBackwards(Mutant):
    kills = "BT-3"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        return list(super().store(records[::-1], timeout))[::-1]


class LastOfAnIdWins(Mutant):
    kills = "BT-3"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        last = list({record.key: record for record in records}.values())
        applied = super().store(last, timeout)
        answers = {record.key: each for record, each in zip(last, applied, strict=True)}
        return [answers[record.key] for record in records]


class JudgesABatchBeforeItStores(Mutant):
    kills = "BT-3"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        bodies = self.bodies([record.key for record in records], timeout)
        applied = [
            body is None or Record.decode(body).barrier <= record.rank
            for record, body in zip(records, bodies, strict=True)
        ]
        super().store([always(r) for r, a in zip(records, applied, strict=True) if a], timeout)
        return applied


class StopsAtTheFirstThatDoesNotApply(Mutant):
    kills = "BT-3"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        applied: list[bool] = []
        for record in records:
            if all(applied):
                applied += super().store([record], timeout)
            else:
                applied.append(False)
        return applied


class AnswersTheNextQuestion(Mutant):
    kills = "BT-3"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        applied = list(super().store(records, timeout))
        return applied[1:] + applied[:1]


class OneAnswerForAll(Mutant):
    kills = "BT-3"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        applied = super().store(records, timeout)
        return [all(applied)] * len(records)


class AppliedFirst(Mutant):
    kills = "BT-3"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        return sorted(super().store(records, timeout), reverse=True)


class ReplacesTheWholeLife(Mutant):
    kills = "BT-3"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        applied = list(super().store(records, timeout))
        if len(records) > 1 and not all(applied):  # "INSERT … failed", so once more as UPDATE
            late = {r.key for r, a in zip(records, applied, strict=True) if not a}
            again = [always(r)._replace(barrier=0) for r in records if r.key in late]
            super().store(again, timeout)
        return applied


class StoresWhatComesBeforeTheOther(Mutant):
    kills = "BT-3"

    @classmethod
    def declared(cls, below: Capabilities) -> Capabilities:
        return replace(below, transactional=True)

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        applied: list[bool] = []
        for start in range(0, len(records), 100):
            applied += super().store(records[start : start + 100], timeout)
            time.sleep(0.01)  # a round trip
        return applied
