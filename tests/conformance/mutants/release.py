"""Broken backends: what is not given back."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

from upshot.backend import Backend, StoredRecord
from upshot.listening import Listener
from upshot.record import Record
from upshot.states import is_terminal

from .kinds import (
    ChangesListener,
    ChangesRecords,
    Mutant,
    PassingListener,
    mark,
)


class NeverUnsubscribes(ChangesListener):
    kills = "RL-1"

    def heard(self, below: Listener) -> Listener:
        return _NeverUnsubscribes(below)


class _NeverUnsubscribes(PassingListener):
    def unsubscribe(self, keys: Sequence[str]) -> None:
        """Never does."""


class ForgetsNothing(Mutant):
    kills = "RL-2"

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        """Never does."""


class ForgetsByRenaming(Mutant):
    kills = "RL-2"

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        super().delete(keys, timeout)
        super().store([mark(key + "@deleted") for key in keys], timeout)


class ForgetRefusesUnknown(Mutant):
    kills = "RL-3"

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        if None in self.bodies(keys, timeout):
            raise LookupError("unknown id")
        super().delete(keys, timeout)


class LateRecordsNeverExpire(ChangesRecords):
    kills = "RL-4"

    def changed(self, record: StoredRecord) -> StoredRecord:
        return record._replace(expires=None) if is_terminal(record.state) else record


class LeavesAThread(ChangesListener):
    kills = "RL-5"

    def heard(self, below: Listener) -> Listener:
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        return below


class LeavesDescriptors(ChangesListener):
    kills = "RL-5"

    def heard(self, below: Listener) -> Listener:
        os.pipe()
        return below


class RemembersEveryKey(Mutant):
    kills = "RL-6"

    def __init__(self, below: Backend) -> None:
        super().__init__(below)
        self._ever: dict[str, list[str]] = {}

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        self._ever.update({key: [key] for key in keys})
        return super().load(keys, timeout)


class NeverExpires(ChangesRecords):
    kills = "RL-8"

    def changed(self, record: StoredRecord) -> StoredRecord:
        return record._replace(expires=None)


class ForgetsItsOwnRecords(Mutant):
    kills = "RL-2"

    def __init__(self, below: Backend) -> None:
        super().__init__(below)
        self._own: set[str] = set()

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        self._own.update(record.key for record in records)
        return super().store(records, timeout)

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        super().delete([key for key in keys if key in self._own], timeout)


class ForgetsTheFirst(Mutant):
    kills = "RL-2"

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        super().delete(keys[:1], timeout)


class ForgetsAHundred(Mutant):
    kills = "RL-2"

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        super().delete(keys[:100], timeout)


class ForgetsWhatHasEnded(Mutant):
    kills = "RL-2"

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        found = zip(keys, self.bodies(keys, timeout), strict=True)
        super().delete([k for k, b in found if b and Record.decode(b).is_terminal], timeout)


class ForgetLeavesTheBell(Mutant):
    kills = "RL-2"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        ended = [record for record in records if is_terminal(record.state)]
        super().store([mark(record.key + "@bell") for record in ended], timeout)
        return super().store(records, timeout)


class ForgettingStopsAtTheUnknown(Mutant):
    kills = "RL-3"

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        found = self.bodies(keys, timeout)
        known = found.index(None) if None in found else len(keys)
        super().delete(keys[:known], timeout)


class ForgettingTwiceFails(Mutant):
    kills = "RL-3"

    def __init__(self, below: Backend) -> None:
        super().__init__(below)
        self._forgotten: set[str] = set()

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        if not self._forgotten.isdisjoint(keys):
            raise LookupError("it was forgotten already")
        self._forgotten.update(keys)
        super().delete(keys, timeout)


class KeepsWhatHasEnded(Mutant):
    kills = "RL-2"

    def __init__(self, below: Backend) -> None:
        super().__init__(below)
        self._ended: dict[str, bytes] = {}

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        for key, body in zip(keys, self.bodies(keys, timeout), strict=True):
            if body is not None and Record.decode(body).is_terminal:
                self._ended[key] = body
        rest = dict(zip(keys, super().load(keys, timeout), strict=True))
        return [self._ended.get(key, rest[key]) for key in keys]

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        for key in keys:
            self._ended.pop(key, None)
        super().delete(keys, timeout)


class ForgottenIdsAreBurnt(Mutant):
    kills = "RL-2"

    def __init__(self, below: Backend) -> None:
        super().__init__(below)
        self._burnt: set[str] = set()

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        fresh = [record for record in records if record.key not in self._burnt]
        applied = iter(super().store(fresh, timeout))
        return [record.key not in self._burnt and next(applied) for record in records]

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        self._burnt.update(keys)
        super().delete(keys, timeout)


class ListenersStayOpen(ChangesListener):
    kills = "RL-5"

    def heard(self, below: Listener) -> Listener:
        return _StaysOpen(below)


class _StaysOpen(PassingListener):
    def close(self) -> None:
        """Never does."""
