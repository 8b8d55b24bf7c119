"""Broken backends: each one does what some backend somewhere does, and one clause forbids.

They are thin layers over the memory backend, and registered as a third party's would be.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from upshot.backend import StoredRecord
from upshot.record import Record
from upshot.states import NEVER, State, is_terminal
from upshot.url import Url
from upshot.waiting import Hint, Listener
from upshot_backends.memory.results import MemoryBackend

_PROCESS = os.getpid()


class Mutant(MemoryBackend):
    """The memory backend, inspected by its own harness."""

    conformance_harness: ClassVar[str | None] = "upshot_conformance.harnesses.memory:MemoryHarness"
    kills: ClassVar[str]
    """The clause that must go red."""


def _always(record: StoredRecord) -> StoredRecord:
    """Return a record that replaces whatever is stored."""
    return replace(record, rank=NEVER)


class KeepsOnlyTheEnd(Mutant):
    kills = "ST-1"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        super().store([each for each in records if is_terminal(each.state)], timeout)
        return [True] * len(records)


class LateStartOverwrites(Mutant):
    kills = "ST-2"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        late = [_always(each) if each.state == State.STARTED else each for each in records]
        return super().store(late, timeout)


class LastTerminalWins(Mutant):
    kills = "ST-3"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        last = [_always(each) if is_terminal(each.state) else each for each in records]
        return super().store(last, timeout)


class AlwaysSaysApplied(Mutant):
    kills = "ST-3"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        super().store(records, timeout)
        return [True] * len(records)


class OlderAttemptReplaces(Mutant):
    kills = "ST-5"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        open_ended = [
            each if is_terminal(each.state) else replace(each, barrier=0) for each in records
        ]
        return super().store(open_ended, timeout)


class RevocationStoredAsSuccess(Mutant):
    kills = "ST-6"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        return super().store([self._changed(each) for each in records], timeout)

    def _changed(self, stored: StoredRecord) -> StoredRecord:
        if stored.state != State.REVOKED:
            return stored
        return replace(
            stored, body=replace(Record.decode(stored.body), state=State.SUCCESS).encode()
        )


class StateBeforePayload(Mutant):
    kills = "ST-7"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        hollow = [
            replace(each, body=replace(Record.decode(each.body), outcome=None).encode())
            for each in records
        ]
        applied = super().store(hollow, timeout)
        time.sleep(0.002)
        super().store([_always(r) for r, a in zip(records, applied, strict=True) if a], timeout)
        return applied


class GuardInTwoSteps(Mutant):
    kills = "ST-4"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        applied: list[bool] = []
        for record in records:
            (body,) = super().load([record.key], timeout)
            time.sleep(0.0005)
            applies = body is None or Record.decode(body).barrier <= record.rank
            if applies:
                super().store([_always(record)], timeout)
            applied.append(applies)
        return applied


class RemembersWhatItRead(Mutant):
    kills = "ST-8"

    def __init__(self, url: Url) -> None:
        super().__init__(url)
        self._cache: dict[str, bytes | None] = {}

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | None]:
        for key, body in zip(keys, super().load(keys, timeout), strict=True):
            self._cache.setdefault(key, body)
        return [self._cache[key] for key in keys]


class _OtherKeys(Mutant):
    """Stores under another key than it was told."""

    def _key(self, key: str) -> str:
        raise NotImplementedError

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        return super().store([replace(r, key=self._key(r.key)) for r in records], timeout)

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | None]:
        return super().load(list(map(self._key, keys)), timeout)

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        super().delete(list(map(self._key, keys)), timeout)


class IgnoresCase(_OtherKeys):
    kills = "ID-2"

    def _key(self, key: str) -> str:
        return key.lower()


class TrimsKeys(_OtherKeys):
    kills = "ID-2"

    def _key(self, key: str) -> str:
        return key.rstrip()


class CutsKeysAt250(_OtherKeys):
    kills = "ID-2"

    def _key(self, key: str) -> str:
        return key[:250]


class ForgetsByPrefix(Mutant):
    kills = "ID-2"

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        for key in keys:
            super().delete(list(self.scan(key, timeout)), timeout)


class RaisesForUnknown(Mutant):
    kills = "ID-1"

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | None]:
        found = super().load(keys, timeout)
        if None in found:
            raise LookupError("unknown id")
        return found


class DropsUnknown(Mutant):
    kills = "ID-1"

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | None]:
        return [body for body in super().load(keys, timeout) if body is not None]


class AnswersInItsOwnOrder(Mutant):
    kills = "ID-2"

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | None]:
        return super().load(sorted(keys), timeout)


class ReadingCreates(Mutant):
    kills = "ID-4"

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | None]:
        found = super().load(keys, timeout)
        marks = [_mark(key + "@asked") for key in keys]
        super().store(marks, timeout)
        return found


def _mark(key: str) -> StoredRecord:
    return StoredRecord(
        key=key, body=b"", rank=1, barrier=1, expires=60, task_id="", state="", name="", reply_to=""
    )


class BytesDecodedToText(Mutant):
    kills = "RS-5"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        lossy = [replace(r, body=r.body.decode("utf-8", "replace").encode()) for r in records]
        # The header's own binary fields survive, as they would in a column of their own.
        kept = [replace(new, body=old.body[:10] + new.body[-len(old.body) + 10 :])
                for old, new in zip(records, lossy, strict=True)]  # fmt: skip
        return super().store(kept, timeout)


class CutsAt64KiB(Mutant):
    kills = "RS-6"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        return super().store([replace(r, body=r.body[:65536]) for r in records], timeout)


class HandsOutOnce(Mutant):
    kills = "RD-1"

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | None]:
        found = super().load(keys, timeout)
        ended = [k for k, b in zip(keys, found, strict=True) if b and Record.decode(b).is_terminal]
        super().delete(ended, timeout)
        return found


class SharesItsRequest(Mutant):
    kills = "RD-2"

    def __init__(self, url: Url) -> None:
        super().__init__(url)
        self._request: Sequence[str] = ()

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | None]:
        self._request = keys
        time.sleep(0.0001)
        return super().load(self._request, timeout)


class ClaimsToBeShared(Mutant):
    kills = "RD-3"
    capabilities = replace(MemoryBackend.capabilities, shared=True)


class DoesNotSurviveAFork(Mutant):
    kills = "RD-4"

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | None]:
        if os.getpid() != _PROCESS:
            raise RuntimeError("this connection belongs to another process")
        return super().load(keys, timeout)


class ReadingExtendsExpiry(Mutant):
    kills = "RD-5"

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | None]:
        found = super().load(keys, timeout)
        slots: dict[str, Any] = vars(self)["_shelf"].slots
        for key in keys:
            if key in slots:
                slots[key] = slots[key]._replace(expires_at=time.monotonic() + 1000)
        return found


class _Deaf(Listener):
    """Passes everything on but what a mutant overrides."""

    def __init__(self, below: Listener) -> None:
        self._below = below

    def subscribe(self, keys: Sequence[str]) -> None:
        self._below.subscribe(keys)

    def unsubscribe(self, keys: Sequence[str]) -> None:
        """Never does."""

    def wait(self, timeout: float) -> Sequence[Hint]:
        return self._below.wait(timeout)

    def interrupt(self) -> None:
        self._below.interrupt()

    def close(self) -> None:
        self._below.close()


class NeverUnsubscribes(Mutant):
    kills = "RL-1"

    def listen(self, timeout: float) -> Listener:
        return _Deaf(super().listen(timeout))


class ForgetsNothing(Mutant):
    kills = "RL-2"

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        """Never does."""


class ForgetsByRenaming(Mutant):
    kills = "RL-2"

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        super().delete(keys, timeout)
        super().store([_mark(key + "@deleted") for key in keys], timeout)


class ForgetRefusesUnknown(Mutant):
    kills = "RL-3"

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        if None in super().load(keys, timeout):
            raise LookupError("unknown id")
        super().delete(keys, timeout)


class LateRecordsNeverExpire(Mutant):
    kills = "RL-4"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        kept = [replace(r, expires=None) if is_terminal(r.state) else r for r in records]
        return super().store(kept, timeout)


class LeavesAThread(Mutant):
    kills = "RL-5"

    def listen(self, timeout: float) -> Listener:
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        return super().listen(timeout)


class LeavesDescriptors(Mutant):
    kills = "RL-5"

    def listen(self, timeout: float) -> Listener:
        os.pipe()
        return super().listen(timeout)


class RemembersEveryKey(Mutant):
    kills = "RL-6"

    def __init__(self, url: Url) -> None:
        super().__init__(url)
        self._ever: dict[str, list[str]] = {}

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | None]:
        self._ever.update({key: [key] for key in keys})
        return super().load(keys, timeout)


class NeverExpires(Mutant):
    kills = "RL-8"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        return super().store([replace(r, expires=None) for r in records], timeout)


class Modest(Mutant):
    """No mutant: can do more than it declares."""

    kills = ""
    capabilities = replace(MemoryBackend.capabilities, reread=False, intermediate=False)


class Slow(Mutant):
    """No mutant: keeps every clause, five milliseconds late."""

    kills = ""

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        time.sleep(0.005)
        return super().store(records, timeout)

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | None]:
        time.sleep(0.005)
        return super().load(keys, timeout)


class Talkative(Mutant):
    """No mutant: keeps every clause, and notifies without need."""

    kills = ""

    def listen(self, timeout: float) -> Listener:
        return _Echo(super().listen(timeout))


class _Echo(_Deaf):
    def unsubscribe(self, keys: Sequence[str]) -> None:
        self._below.unsubscribe(keys)

    def wait(self, timeout: float) -> Sequence[Hint]:
        heard = self._below.wait(timeout)
        return [*heard, *heard, Hint("somebody else's", None), Hint(None)]


def backends() -> Iterator[type[Mutant]]:
    """Yield every class of this module that can be opened."""
    for found in list(globals().values()):
        if isinstance(found, type) and issubclass(found, Mutant) and "kills" in vars(found):
            yield found
