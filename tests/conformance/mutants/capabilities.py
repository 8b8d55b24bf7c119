"""Broken backends: what is declared and is not so."""

from __future__ import annotations

import math
import threading
import time
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from upshot.backend import Backend, Capabilities, StoredRecord
from upshot.listening import Hint, Listener

from .batches import OneQueryPerKey, StoresWhatComesBeforeTheOther
from .expiry import ChangesExpiry
from .kinds import ChangesKeys, ChangesListener, ChangesRecords, Mutant, PassingListener
from .reading import HandsOutOnce
from .states import GuardInTwoSteps, KeepsOnlyTheEnd

# -- declarations that are none -------------------------------------------------------------------


class _Loose(Capabilities):
    """Has a dict of its own, as a class that does not ask for slots."""

    def __setattr__(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)


def _fields(declared: Capabilities, **changes: object) -> dict[str, Any]:
    return {name: getattr(declared, name) for name in declared.__slots__} | changes


class CapabilitiesCanBeChanged(Mutant):
    kills = "CP-1"

    @classmethod
    def declared(cls, below: Capabilities) -> Capabilities:
        return _Loose(**_fields(below))


class DeclaresByTruth(Mutant):
    kills = "CP-1"

    @classmethod
    def declared(cls, below: Capabilities) -> Capabilities:
        return Capabilities(**_fields(below, batch=1, scan="yes"))


class PollsEveryFewSeconds(Mutant):
    kills = "CP-1"

    @classmethod
    def declared(cls, below: Capabilities) -> Capabilities:
        return replace(below, poll_interval=5.0)


class TakesRecordsOfNoLimit(Mutant):
    kills = "CP-1"

    @classmethod
    def declared(cls, below: Capabilities) -> Capabilities:
        return Capabilities(**_fields(below, max_record_bytes=math.inf))


class LearnsThatItCanMore(Mutant):
    kills = "CP-1"

    @classmethod
    def declared(cls, below: Capabilities) -> Capabilities:
        return replace(below, scan=False, batch=False)

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        self.capabilities = self.below.capabilities
        return super().load(keys, timeout)


class LearnsALargerLimit(Mutant):
    kills = "CP-1"

    @classmethod
    def declared(cls, below: Capabilities) -> Capabilities:
        return replace(below, max_record_bytes=below.max_record_bytes // 2)

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        self.capabilities = self.below.capabilities
        return super().store(records, timeout)


class ConnectsWhenItIsMade(Mutant):
    kills = "CP-1"
    network_only = "elsewhere there is nothing to connect to"

    def __init__(self, below: Backend) -> None:
        super().__init__(below)
        self.below.load(["version"], 1.0)


class StartsAThreadWhenItIsMade(Mutant):
    kills = "CP-1"

    def __init__(self, below: Backend) -> None:
        super().__init__(below)
        self._over = threading.Event()
        threading.Thread(target=self._over.wait, daemon=True).start()

    def close(self) -> None:
        self._over.set()
        super().close()


class ListsNothingUndeclared(Mutant):
    kills = "CP-2"

    @classmethod
    def declared(cls, below: Capabilities) -> Capabilities:
        return replace(below, scan=False)

    def scan(self, prefix: str, timeout: float) -> Iterator[str]:
        return iter(())


class BlocksWhereItCannotListen(Mutant):
    kills = "CP-2"

    @classmethod
    def declared(cls, below: Capabilities) -> Capabilities:
        return replace(below, push=False)

    def listen(self, timeout: float) -> Listener | None:
        time.sleep(2 * timeout)
        return None


# -- push -----------------------------------------------------------------------------------------


class ClaimsPush(Mutant):
    kills = "CP-3"

    @classmethod
    def declared(cls, below: Capabilities) -> Capabilities:
        return replace(below, push=True)

    def listen(self, timeout: float) -> Listener | None:
        return None


class ClaimsToHear(ChangesListener):
    kills = "CP-3"

    @classmethod
    def declared(cls, below: Capabilities) -> Capabilities:
        return replace(below, push=True)

    def heard(self, below: Listener) -> Listener:
        return _Deaf(below)


class _Deaf(PassingListener):
    def wait(self, timeout: float) -> Sequence[Hint]:
        return [hint for hint in super().wait(timeout) if hint.key is None]


class HearsOfNoDeletion(ChangesListener):
    kills = "CP-3"

    @classmethod
    def declared(cls, below: Capabilities) -> Capabilities:
        return replace(below, push=True)

    def heard(self, below: Listener) -> Listener:
        return _HearsOfNoDeletion(below)


class _HearsOfNoDeletion(PassingListener):
    def wait(self, timeout: float) -> Sequence[Hint]:
        return [hint for hint in super().wait(timeout) if hint.body != b""]


class HearsOfItsFirstKeys(ChangesListener):
    kills = "CP-3"

    @classmethod
    def declared(cls, below: Capabilities) -> Capabilities:
        return replace(below, push=True)

    def heard(self, below: Listener) -> Listener:
        return _HearsOfItsFirstKeys(below)


class _HearsOfItsFirstKeys(PassingListener):
    def __init__(self, below: Listener) -> None:
        super().__init__(below)
        self._first: set[str] = set()

    def subscribe(self, keys: Sequence[str]) -> None:
        self._first = self._first or set(keys)
        super().subscribe(keys)

    def wait(self, timeout: float) -> Sequence[Hint]:
        return [hint for hint in super().wait(timeout) if hint.key in self._first]


class CannotBeInterrupted(ChangesListener):
    kills = "CP-3"

    @classmethod
    def declared(cls, below: Capabilities) -> Capabilities:
        return replace(below, push=True)

    def heard(self, below: Listener) -> Listener:
        return _CannotBeInterrupted(below)


class _CannotBeInterrupted(PassingListener):
    def wait(self, timeout: float) -> Sequence[Hint]:
        until = time.monotonic() + timeout
        hints = list(super().wait(timeout))
        while not hints and time.monotonic() < until:
            hints += super().wait(until - time.monotonic())
        return hints


# -- scan -----------------------------------------------------------------------------------------


class ClaimsToList(Mutant):
    kills = "CP-3"

    def scan(self, prefix: str, timeout: float) -> Iterator[str]:
        return iter(())


class ListsAPage(Mutant):
    kills = "CP-3"

    def scan(self, prefix: str, timeout: float) -> Iterator[str]:
        return islice(super().scan(prefix, timeout), 1000)


class ListsWhatItCanReadOff(Mutant):
    kills = "CP-3"

    def scan(self, prefix: str, timeout: float) -> Iterator[str]:
        return (key for key in super().scan(prefix, timeout) if "#" not in key)


# -- the others -----------------------------------------------------------------------------------


class ClaimsSharing(Mutant):
    kills = "CP-3"
    memory_only = "the others are shared"

    @classmethod
    def declared(cls, below: Capabilities) -> Capabilities:
        return replace(below, shared=True)


class ClaimsReread(HandsOutOnce):
    kills = "CP-3"


class ClaimsIntermediate(KeepsOnlyTheEnd):
    kills = "CP-3"


class ClaimsAtomic(GuardInTwoSteps):
    kills = "CP-3"


class ClaimsTransactions(StoresWhatComesBeforeTheOther):
    kills = "CP-3"


class ClaimsBatches(OneQueryPerKey):
    kills = "CP-3"


class ClaimsToShowAtOnce(Mutant):
    kills = "CP-3"

    def __init__(self, below: Backend) -> None:
        super().__init__(below)
        self._seen: dict[str, tuple[float, bytes | None]] = {}

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        for key, body in zip(keys, self.bodies(keys, timeout), strict=True):
            seen = self._seen.get(key)
            if seen is None or seen[0] < time.monotonic():
                self._seen[key] = (time.monotonic() + 0.1, body)
        return [self._seen[key][1] for key in keys]


class ClaimsAFineResolution(ChangesExpiry):
    kills = "CP-3"

    def other(self, expires: float) -> float:
        return math.ceil(expires)


class CutsLongKeys(ChangesKeys):
    kills = "CP-3"

    def other(self, key: str) -> str:
        return key.encode()[:255].decode(errors="ignore")


class TrimsKeys(ChangesKeys):
    kills = "CP-3"

    def other(self, key: str) -> str:
        return key.rstrip(" ")


class FoldsKeys(ChangesKeys):
    kills = "CP-3"

    def other(self, key: str) -> str:
        return key.casefold()


class ComposesKeys(ChangesKeys):
    kills = "CP-3"

    def other(self, key: str) -> str:
        return unicodedata.normalize("NFC", key)


class KeepsThreeBytesOfALetter(ChangesKeys):
    kills = "CP-3"

    def other(self, key: str) -> str:
        return "".join(letter if letter <= "\uffff" else "?" for letter in key)


class TakesKeysForLatin(ChangesKeys):
    kills = "CP-3"

    def other(self, key: str) -> str:
        return key.encode("latin-1", "replace").decode("latin-1")


class CutsLongBodies(ChangesRecords):
    kills = "CP-3"

    def changed(self, record: StoredRecord) -> StoredRecord:
        return record._replace(body=record.body[: 2**20])


class TakesBodiesForText(ChangesRecords):
    kills = "CP-3"

    def changed(self, record: StoredRecord) -> StoredRecord:
        return record._replace(body=record.body.decode(errors="replace").encode())
