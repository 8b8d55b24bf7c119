"""Broken backends: items of streams that are lost, changed, not heard of, or not given back."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from upshot.backend import Backend, StoredRecord
from upshot.listening import Hint, Listener

from .kinds import ChangesKeys, ChangesListener, ChangesRecords, Mutant, PassingListener, always

_ITEM = re.compile(r"\A(?P<before>[^+:#]*|#[0-9a-f]{64})\+(?P<index>[0-9]+):")
"""A key of an item that was not hashed."""


def index_of(key: str) -> int | None:
    """Return the index of an item, None for what is no item."""
    found = _ITEM.match(key)
    return int(found["index"]) if found else None


class LosesTheLastItemOfABatch(Mutant):
    kills = "SM-1"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        if len(records) > 1 and index_of(records[-1].key) is not None:
            return [*super().store(records[:-1], timeout), True]
        return super().store(records, timeout)


class SwapsItems(ChangesRecords):
    kills = "SM-1"

    def changed(self, record: StoredRecord) -> StoredRecord:
        index = index_of(record.key)
        if index is None:
            return record
        return record._replace(key=record.key.replace(f"+{index}:", f"+{index ^ 1}:", 1))


class TheLastItemWins(ChangesRecords):
    kills = "SM-2"

    def changed(self, record: StoredRecord) -> StoredRecord:
        return record if index_of(record.key) is None else always(record)._replace(barrier=0)


class HearsOfNoItem(ChangesListener):
    kills = "SM-3"

    def heard(self, below: Listener) -> Listener:
        return _HearsOfNoItem(below)


class _HearsOfNoItem(PassingListener):
    def wait(self, timeout: float) -> Sequence[Hint]:
        heard = super().wait(timeout)
        return [hint for hint in heard if hint.key is None or index_of(hint.key) is None]


class ShowsItemsLate(Mutant):
    kills = "SM-3"

    def __init__(self, below: Backend) -> None:
        super().__init__(below)
        self._looks: dict[str, int] = {}

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        return [
            body if body is None or index_of(key) in (None, 0) or self._has_asked(key) else None
            for key, body in zip(keys, self.bodies(keys, timeout), strict=True)
        ]

    def _has_asked(self, key: str) -> bool:
        self._looks[key] = self._looks.get(key, 0) + 1
        return self._looks[key] > 40

    def listen(self, timeout: float) -> Listener | None:
        return None


class HandsItemsOutOnce(Mutant):
    kills = "SM-4"

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        found = self.bodies(keys, timeout)
        taken = [key for key, body in zip(keys, found, strict=True) if body and index_of(key)]
        super().delete(taken, timeout)
        return found


class FillsHoles(Mutant):
    kills = "SM-5"

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        found = self.bodies(keys, timeout)
        items = [body for key, body in zip(keys, found, strict=True) if index_of(key) is not None]
        if len(items) > 1 and None in items:
            there = iter([body for body in items if body is not None])
            return [
                body if index_of(key) is None else next(there, None)
                for key, body in zip(keys, found, strict=True)
            ]
        return found


class ForgetsNoItem(Mutant):
    kills = "SM-6"

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        super().delete([key for key in keys if index_of(key) is None], timeout)


class ForgetsTheFirstThousand(Mutant):
    kills = "SM-6"

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        super().delete([key for key in keys if (index_of(key) or 0) < 1000], timeout)


class ItemsNeverExpire(ChangesRecords):
    kills = "SM-6"

    def changed(self, record: StoredRecord) -> StoredRecord:
        return record if index_of(record.key) is None else record._replace(expires=None)


class TakesItemsForOneAnothers(ChangesKeys):
    kills = "SM-7"

    def other(self, key: str) -> str:
        return re.sub(r"\+([0-9]+):([0-9]+):", r"+\1\2:", key)


class ItemsShareOneNamespace(ChangesKeys):
    kills = "SM-7"

    def other(self, key: str) -> str:
        return _ITEM.sub(r"everybody+\g<index>:", key)


class ListsItems(Mutant):
    kills = "SM-7"

    def scan(self, prefix: str, timeout: float) -> Iterator[str]:
        return super().scan(prefix.rstrip(":#"), timeout)
