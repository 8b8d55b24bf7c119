"""Broken backends: when a record goes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import ClassVar

from upshot import clock
from upshot.backend import Backend, StoredRecord
from upshot.listening import Hint, Listener
from upshot.record import Record

from .kinds import ChangesRecords, Mutant, PassingListener, always, mark

_DAY = 86_400.0
_NEVER = float("inf")


class ChangesExpiry(ChangesRecords):
    """Keeps a record for another time than it was told; a subclass says for how many seconds."""

    def changed(self, record: StoredRecord) -> StoredRecord:
        return record._replace(expires=self.seconds(record.expires))

    def seconds(self, expires: float | None) -> float | None:
        """Return what takes the place of an expiry; one that is given, if not overridden."""
        return None if expires is None else self.other(expires)

    def other(self, expires: float) -> float | None:
        """Return what takes the place of a number of seconds."""
        return expires


class KeepsWhatItIsGivenForEver(ChangesExpiry):
    kills = "EX-1"

    def other(self, expires: float) -> float | None:
        return None


class AddsATenth(ChangesExpiry):
    kills = "EX-1"

    def other(self, expires: float) -> float:
        return expires + max(0.2, expires / 10)


class TakesASafetyMargin(ChangesExpiry):
    kills = "EX-1"

    def other(self, expires: float) -> float:
        return expires / 2


class RoundsUpToSeconds(ChangesExpiry):
    kills = "EX-3"

    def other(self, expires: float) -> float:
        return math.ceil(expires)


class CutsToSeconds(ChangesExpiry):
    kills = "EX-3"

    def other(self, expires: float) -> float | None:
        return int(expires) or None  # no argument, no expiry


class TakesMillisecondsForSeconds(ChangesExpiry):
    kills = "EX-3"

    def other(self, expires: float) -> float:
        return expires * 1000


class TakesSecondsForMilliseconds(ChangesExpiry):
    kills = "EX-3"

    def other(self, expires: float) -> float:
        return expires / 1000


class TakesLongTimesForDates(ChangesExpiry):
    kills = "EX-3"

    def other(self, expires: float) -> float:
        return expires if expires <= 30 * _DAY else 1e-6  # a day of 1970


class KeepsAMonthAtMost(ChangesExpiry):
    kills = "EX-3"

    def other(self, expires: float) -> float:
        return min(expires, 30 * _DAY)


class KeepsForADayIfNotTold(ChangesExpiry):
    kills = "EX-3"

    def seconds(self, expires: float | None) -> float:
        return expires or _DAY


class RoundsToHours(ChangesExpiry):
    kills = "EX-3"

    def other(self, expires: float) -> float:
        return expires if expires < 3600 else math.ceil(expires / 3600) * 3600


class KeepsTheFirstExpiry(ChangesRecords):
    kills = "EX-1"
    _until: ClassVar[dict[str, float]] = {}

    def changed(self, record: StoredRecord) -> StoredRecord:
        until = clock.monotonic() + (_NEVER if record.expires is None else record.expires)
        until = self._until.setdefault(record.key, until)
        left = until - clock.monotonic()
        if left <= 0:
            del self._until[record.key]
            return record
        return record._replace(expires=None if left == _NEVER else left)


# -- what puts the end off ------------------------------------------------------------------------


class Renews(Mutant):
    """Remembers what it stored, so that it can store it again."""

    _stored: ClassVar[dict[str, StoredRecord]] = {}

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        applied = super().store(records, timeout)
        for record, applies in zip(records, applied, strict=True):
            if applies:
                self._stored[record.key] = record
        return applied

    def renew(self, key: str, timeout: float, expires: float | None) -> None:
        """Let a record that is there live anew."""
        (body,) = self.bodies([key], timeout)
        stored = self._stored.get(key)
        if body is not None and stored is not None and stored.body == body:
            self.below.delete([key], timeout)
            self.below.store([stored._replace(expires=expires)], timeout)


class ReadingRenews(Renews):
    kills = "EX-2"

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        found = super().load(keys, timeout)
        for key in set(keys) & self._stored.keys():
            self.renew(key, timeout, self._stored[key].expires)
        return found


class ReadingAloneRenews(Renews):
    kills = "EX-2"

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        found = super().load(keys, timeout)
        if len(keys) == 1 and keys[0] in self._stored:
            self.renew(keys[0], timeout, self._stored[keys[0]].expires)
        return found


class WritingRenewsWhatItDoesNotReplace(Renews):
    kills = "EX-2"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        applied = super().store(records, timeout)
        for record, applies in zip(records, applied, strict=True):
            if not applies:
                self.renew(record.key, timeout, record.expires)
        return applied


class RedeliveryRenews(Renews):
    kills = "EX-2"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        applied = super().store(records, timeout)
        for record, applies in zip(records, applied, strict=True):
            stored = self._stored.get(record.key)
            if not applies and stored and stored.state == record.state:
                self.renew(record.key, timeout, record.expires)
        return applied


class LateWritesShorten(Renews):
    kills = "EX-2"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        applied = super().store(records, timeout)
        for record, applies in zip(records, applied, strict=True):
            stored = self._stored.get(record.key)
            if not applies and stored and (record.expires or _NEVER) < (stored.expires or _NEVER):
                self.renew(record.key, timeout, record.expires)
        return applied


# -- an expiry that the backend keeps itself, on a service that has none --------------------------


class KeepsDates(Mutant):
    """Keeps the dates of all records beside them, and hides what has expired; conforms so far."""

    _dates: ClassVar[dict[str, float]] = {}
    _extra: ClassVar[float] = 60.0
    """Seconds that the service keeps a record for which nobody may see it any more."""

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        applied: list[bool] = []
        for record in records:
            self.clear(record.key, timeout)
            seconds = _NEVER if record.expires is None else record.expires
            lasting = None if record.expires is None else seconds + self._extra
            applied += super().store([record._replace(expires=lasting)], timeout)
            if applied[-1]:
                self._dates[record.key] = clock.monotonic() + seconds
        return applied

    def clear(self, key: str, timeout: float) -> None:
        """Make room where an expired record is."""
        if self.expired(key):
            self.below.delete([key], timeout)

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        found = super().load(keys, timeout)
        return [None if self.expired(k) else body for k, body in zip(keys, found, strict=True)]

    def scan(self, prefix: str, timeout: float) -> Iterator[str]:
        return (key for key in super().scan(prefix, timeout) if not self.expired(key))

    def expired(self, key: str) -> bool:
        """Tell whether the time of a record is over."""
        return self._dates.get(key, _NEVER) <= clock.monotonic()


class ShowsTheExpiredInBatches(KeepsDates):
    kills = "EX-1"

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        return super().load(keys, timeout) if len(keys) == 1 else self.below.load(keys, timeout)


class ShowsTheExpiredAlone(KeepsDates):
    kills = "EX-1"

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        return super().load(keys, timeout) if len(keys) > 1 else self.below.load(keys, timeout)


class ExpiresForItsWriter(KeepsDates):
    kills = "EX-1"

    def __init__(self, below: Backend) -> None:
        super().__init__(below)
        vars(self)["_dates"] = {}


class ExpiredRecordsAreInTheWay(KeepsDates):
    kills = "EX-4"

    def clear(self, key: str, timeout: float) -> None:
        """Never does."""


class TheExpiredAreInTheWayUntilSeen(KeepsDates):
    kills = "EX-4"
    _seen: ClassVar[set[str]] = set()

    def clear(self, key: str, timeout: float) -> None:
        if key in self._seen:
            super().clear(key, timeout)

    def expired(self, key: str) -> bool:
        gone = super().expired(key)
        self._seen.update([key] if gone else [])
        return gone


class WhatHasExpiredStaysSo(KeepsDates):
    kills = "EX-4"
    _gone: ClassVar[set[str]] = set()

    def expired(self, key: str) -> bool:
        self._gone.update([key] if super().expired(key) else [])
        return key in self._gone


class ExpiredIdsRaise(KeepsDates):
    kills = "EX-4"

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        if len(keys) == 1 and self.expired(keys[0]):
            return [b"expired"]  # no record, so that the core says that it is corrupt
        return super().load(keys, timeout)


class ExpiryEndsWaits(KeepsDates):
    kills = "EX-4"

    def listen(self, timeout: float) -> Listener | None:
        below = super().listen(timeout)
        return below and _HearsOfExpiry(below, self)


class _HearsOfExpiry(PassingListener):
    def __init__(self, below: Listener, mutant: KeepsDates) -> None:
        super().__init__(below)
        self._mutant = mutant
        self._keys: set[str] = set()

    def subscribe(self, keys: Sequence[str]) -> None:
        super().subscribe(keys)
        self._keys.update(keys)

    def wait(self, timeout: float) -> Sequence[Hint]:
        heard = super().wait(min(timeout, 0.01))
        gone = [Hint(key, b"") for key in self._keys if self._mutant.expired(key)]
        return [*heard, *gone]


class LeavesATombstone(Mutant):
    kills = "EX-4"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        applied = super().store(records, timeout)
        graves = [mark(each.key + "@expired", b"x") for each in records if each.expires]
        super().store([always(each) for each in graves], timeout)
        return applied

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        found = self.bodies(keys, timeout)
        graves = self.bodies([key + "@expired" for key in keys], timeout)
        return [
            _revoked(key) if body is None and grave else body
            for key, body, grave in zip(keys, found, graves, strict=True)
        ]


def _revoked(key: str) -> bytes:
    return Record(task_id=key.partition(":")[2], state="REVOKED").encode()
