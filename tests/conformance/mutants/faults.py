"""Broken backends: what goes wrong when the line or the service does, or the bytes are bad."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from upshot.backend import Backend, Capabilities, StoredRecord
from upshot.errors import CorruptRecordError, UpshotError
from upshot.listening import Hint, Listener
from upshot.record import Record

from .kinds import ChangesListener, Mutant, PassingListener

_FAULTY = "only a line or a service that fails shows it"


class KeepsABrokenConnection(Mutant):
    kills = "FT-1"
    network_only = _FAULTY

    def __init__(self, below: Backend) -> None:
        super().__init__(below)
        self._broken: Exception | None = None

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        if self._broken:
            raise self._broken
        try:
            return super().load(keys, timeout)
        except Exception as exc:
            self._broken = exc
            raise


class KeepsABrokenWriter(Mutant):
    kills = "FT-1"
    network_only = _FAULTY

    def __init__(self, below: Backend) -> None:
        super().__init__(below)
        self._broken: Exception | None = None

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        if self._broken:
            raise self._broken
        try:
            return super().store(records, timeout)
        except Exception as exc:
            self._broken = exc
            raise


class StopsListeningForGood(ChangesListener):
    kills = "FT-1"
    network_only = _FAULTY

    def heard(self, below: Listener) -> Listener:
        return _StopsListeningForGood(below)


class _StopsListeningForGood(PassingListener):
    def __init__(self, below: Listener) -> None:
        super().__init__(below)
        self._interrupted = threading.Event()

    def wait(self, timeout: float) -> Sequence[Hint]:
        try:
            return self._below.wait(timeout)
        except Exception:  # "it will come back by itself"
            self._interrupted.wait(60)
            self._interrupted.clear()
            return []

    def interrupt(self) -> None:
        super().interrupt()
        self._interrupted.set()


class HidesThatItCannotRead(Mutant):
    kills = "FT-2"
    network_only = _FAULTY

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        try:
            return super().load(keys, timeout)
        except Exception:
            return [None] * len(keys)


class ReadsItsCacheWhenItCannotRead(Mutant):
    kills = "ST-8"
    network_only = _FAULTY

    def __init__(self, below: Backend) -> None:
        super().__init__(below)
        self._last: dict[str, bytes | None] = {}

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        try:
            self._last.update(zip(keys, self.bodies(keys, timeout), strict=True))
        except Exception:
            if not self._last.keys() >= set(keys):
                raise
        return [self._last[key] for key in keys]


class SwallowsStoreErrors(Mutant):
    kills = "FT-3"
    network_only = _FAULTY

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        try:
            return super().store(records, timeout)
        except Exception:
            return [True] * len(records)


class SaysRefusedWhenItCannotStore(Mutant):
    kills = "FT-3"
    network_only = _FAULTY

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        try:
            return super().store(records, timeout)
        except Exception:
            return [False] * len(records)


class RetriesByItself(Mutant):
    kills = "FT-3"
    network_only = _FAULTY

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        try:
            return super().store(records, timeout)
        except Exception:
            return super().store(records, timeout)  # and cannot tell its own record from another's


class StoresLater(Mutant):
    kills = "FT-3"

    def __init__(self, below: Backend) -> None:
        super().__init__(below)
        self._pool = ThreadPoolExecutor(1)

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        self._pool.submit(self._store, records, timeout)
        return [True] * len(records)

    def _store(self, records: Sequence[StoredRecord], timeout: float) -> None:
        time.sleep(0.02)
        self.below.store(records, timeout)

    def close(self) -> None:
        self._pool.shutdown()
        super().close()


class StoresTheRestLater(StoresLater):
    kills = "FT-3"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        if len(records) > 1:
            self._pool.submit(self._store, records[1:], timeout)
        return [*self.below.store(records[:1], timeout), *[True] * (len(records) - 1)]


class TakesDamageForNothing(Mutant):
    kills = "FT-4"

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        return [body if _is_record(body) else None for body in self.bodies(keys, timeout)]


class ForgetsDamage(Mutant):
    kills = "FT-4"

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        found = self.bodies(keys, timeout)
        bad = [key for key, body in zip(keys, found, strict=True) if body and not _is_record(body)]
        self.below.delete(bad, timeout)
        return found


class FailsForOneInTheBatch(Mutant):
    kills = "FT-4"

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        found = self.bodies(keys, timeout)
        for body in found:
            if body:
                Record.decode(body)
        return found


class HearsNothingAfterDamage(ChangesListener):
    kills = "FT-4"

    def heard(self, below: Listener) -> Listener:
        return _HearsNothingAfterDamage(below)


class _HearsNothingAfterDamage(PassingListener):
    def wait(self, timeout: float) -> Sequence[Hint]:
        heard = self._below.wait(timeout)
        for hint in heard:
            if hint.body and not _is_record(hint.body):
                raise SystemExit("a thread cannot go on")
        return heard


class HearsOfDamageAsForgotten(ChangesListener):
    kills = "FT-4"

    def heard(self, below: Listener) -> Listener:
        return _HearsOfDamageAsForgotten(below)


class _HearsOfDamageAsForgotten(PassingListener):
    def wait(self, timeout: float) -> Sequence[Hint]:
        heard = self._below.wait(timeout)
        return [Hint(h.key, b"") if h.body and not _is_record(h.body) else h for h in heard]


class IgnoresItsTimeout(Mutant):
    kills = "FT-5"
    network_only = _FAULTY

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        return super().load(keys, 60.0)


class StoresWithoutTimeout(Mutant):
    kills = "FT-5"
    network_only = _FAULTY

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        return super().store(records, 60.0)


class ForgetsWithoutTimeout(Mutant):
    kills = "FT-5"
    network_only = _FAULTY

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        super().delete(keys, 60.0)


class StoresAgainForEver(Mutant):
    kills = "FT-5"
    network_only = _FAULTY

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        for _ in range(100):  # not for ever, so that the run ends
            try:
                return super().store(records, timeout)
            except Exception:
                time.sleep(0.01)
        return super().store(records, timeout)


class HasOneConnectionForAll(Mutant):
    kills = "FT-5"
    network_only = _FAULTY

    def __init__(self, below: Backend) -> None:
        super().__init__(below)
        self._lock = threading.Lock()

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        with self._lock:
            return super().load(keys, timeout)


class IsImpatient(Mutant):
    kills = "FT-5"
    network_only = _FAULTY

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        return super().load(keys, min(timeout, 0.02))


class ClaimsToBePersistent(Mutant):
    kills = "FT-3"
    network_only = "only a service that ends loses what it had"
    disruptive = True

    @classmethod
    def declared(cls, below: Capabilities) -> Capabilities:
        return replace(below, persistent=True)


def _is_record(body: bytes | None) -> bool:
    try:
        Record.decode(body or b"")
    except (CorruptRecordError, UpshotError):
        return False
    return True
