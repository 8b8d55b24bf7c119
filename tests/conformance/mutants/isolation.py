"""Broken backends: who meets whom on one service."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import ClassVar, Final
from urllib.parse import unquote

from upshot.backend import StoredRecord
from upshot.errors import CorruptRecordError
from upshot.listening import Hint, Listener
from upshot.record import Record
from upshot.states import is_terminal

from .kinds import (
    ChangesKeys,
    ChangesListener,
    Mutant,
    PassingListener,
    mark,
)

_PLACE: Final = re.compile("[:#]")


def _namespace_of(key: str) -> str:
    return _PLACE.split(key, maxsplit=1)[0]


def _id_of(key: str) -> str:
    return key[len(_namespace_of(key)) + 1 :]


class IgnoresNamespaces(ChangesKeys):
    kills = "IS-1"

    def other(self, key: str) -> str:
        return f"cf-all:{_id_of(key)}"


class JoinsWithoutSeparator(ChangesKeys):
    kills = "IS-1"

    def other(self, key: str) -> str:
        return _namespace_of(key) + _id_of(key)


class DecodesKeys(ChangesKeys):
    kills = "IS-1"

    def other(self, key: str) -> str:
        return unquote(key)


class LowersNamespaces(ChangesKeys):
    kills = "IS-1"

    def other(self, key: str) -> str:
        return _namespace_of(key).lower() + key[len(_namespace_of(key)) :]


class CutsNamespaces(ChangesKeys):
    kills = "IS-1"

    def other(self, key: str) -> str:
        return _namespace_of(key)[:56] + key[len(_namespace_of(key)) :]


class DropsWhatIsNoWord(ChangesKeys):
    kills = "IS-1"

    def other(self, key: str) -> str:
        cleaned = re.sub(r"[^\w-]", "", unquote(_namespace_of(key)))
        return cleaned + key[len(_namespace_of(key)) :]


class ForgetsInAllNamespaces(Mutant):
    kills = "IS-1"

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        ids = set(map(_id_of, keys))
        super().delete([key for key in self.scan("", timeout) if _id_of(key) in ids], timeout)


class ForgetsByNamespacePrefix(Mutant):
    kills = "IS-1"

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        for key in keys:
            alike = self.scan(_namespace_of(key), timeout)
            super().delete([each for each in alike if _id_of(each) == _id_of(key)], timeout)


class ScansEverything(Mutant):
    kills = "IS-1"

    def scan(self, prefix: str, timeout: float) -> Iterator[str]:
        return super().scan("", timeout)


class ScansByWildcard(Mutant):
    kills = "IS-1"

    def scan(self, prefix: str, timeout: float) -> Iterator[str]:
        pattern = re.escape(prefix).replace("%", ".*").replace("_", ".")
        return (key for key in super().scan("", timeout) if re.match(pattern, key))


class ScansIgnoringCase(Mutant):
    kills = "IS-1"

    def scan(self, prefix: str, timeout: float) -> Iterator[str]:
        every = super().scan("", timeout)
        return (key for key in every if key.lower().startswith(prefix.lower()))


class _Ear(PassingListener):
    """Hears of an id in whatever namespace."""

    def __init__(self, below: Listener) -> None:
        super().__init__(below)
        self._keys: dict[str, str] = {}
        self._heard: list[Hint] = []

    def ring(self, key: str, body: bytes) -> None:
        awaited = self._keys.get(_id_of(key))
        if awaited is not None:
            self._heard.append(Hint(awaited, body))
            self.interrupt()

    def subscribe(self, keys: Sequence[str]) -> None:
        self._keys.update({_id_of(key): key for key in keys})
        super().subscribe(keys)

    def unsubscribe(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._keys.pop(_id_of(key), None)
        super().unsubscribe(keys)

    def wait(self, timeout: float) -> Sequence[Hint]:
        heard = [*super().wait(timeout), *self._heard]
        self._heard.clear()
        return heard


class _RingsByIdAlone(ChangesListener):
    _ears: ClassVar[list[_Ear]] = []

    def heard(self, below: Listener) -> Listener:
        self._ears.append(_Ear(below))
        return self._ears[-1]

    def ring(self, key: str, body: bytes) -> None:
        for ear in list(self._ears):
            ear.ring(key, body)


class RingsByIdAlone(_RingsByIdAlone):
    kills = "IS-1"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        applied = super().store(records, timeout)
        for record in records:
            if is_terminal(record.state):
                self.ring(record.key, record.body)
        return applied


class SaysForgottenByIdAlone(_RingsByIdAlone):
    kills = "IS-1"

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        super().delete(keys, timeout)
        for key in keys:
            self.ring(key, b"")


class _Sweeps(Mutant):
    def sweep(self, limit: int, timeout: float) -> int:
        return 0


class PruneDropsWhatLives(_Sweeps):
    kills = "IS-1"

    def sweep(self, limit: int, timeout: float) -> int:
        keys = list(self.scan("", timeout))[: limit - 1]
        super().delete(keys, timeout)
        return len(keys)


class ForgetFlushes(Mutant):
    kills = "IS-2"

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        super().delete(list(self.scan("", timeout)), timeout)


class ForgetDropsWhatBeginsAlike(Mutant):
    kills = "IS-2"

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        super().delete(keys, timeout)
        for namespace in set(map(_namespace_of, keys)):
            alike = self.scan(namespace, timeout)
            super().delete([key for key in alike if key[len(namespace)] not in ":#"], timeout)


class ClosingFlushes(Mutant):
    kills = "IS-2"

    def close(self) -> None:
        super().delete(list(self.scan("", 5)), 5)
        super().close()


class PruneFlushes(_Sweeps):
    kills = "IS-2"

    def sweep(self, limit: int, timeout: float) -> int:
        super().delete(list(self.scan("", timeout)), timeout)
        return 0


class WritesAnIndexOfItsOwn(Mutant):
    kills = "IS-2"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        written = " ".join(record.key for record in records)
        super().store([mark("upshot-last-written", written.encode())], timeout)
        return super().store(records, timeout)


class PutsLongRecordsElsewhere(Mutant):
    kills = "IS-2"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        parts = [mark(f"part-{hash(r.body)}", r.body) for r in records if len(r.body) > 4096]
        super().store(parts, timeout)
        return super().store(records, timeout)


class ReadsOtherVersionsAsItsOwn(Mutant):
    kills = "IS-3"

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        return [body and b"u2" + body[2:] for body in self.bodies(keys, timeout)]


class HidesOtherVersions(Mutant):
    kills = "IS-3"

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        found = self.bodies(keys, timeout)
        return [body if body and body.startswith(b"u2") else None for body in found]


class OneOfAnotherVersionSpoilsTheBatch(Mutant):
    kills = "IS-3"

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        found = self.bodies(keys, timeout)
        if any(body is not None and not body.startswith(b"u2") for body in found):
            raise CorruptRecordError("a record is of another version")
        return found


class ReplacesOtherVersions(Mutant):
    kills = "IS-3"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        found = self.bodies([record.key for record in records], timeout)
        strange = [
            record.key
            for record, body in zip(records, found, strict=True)
            if body is not None and not body.startswith(b"u2")
        ]
        super().delete(strange, timeout)
        return super().store(records, timeout)


class DropsWhatItDoesNotUnderstand(Mutant):
    kills = "IS-3"

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        found: list[bytes | None] = []
        for key, body in zip(keys, self.bodies(keys, timeout), strict=True):
            try:
                if body is not None:
                    Record.decode(body)
                found.append(body)
            except CorruptRecordError:
                super().delete([key], timeout)
                found.append(None)
        return found


class DropsSerializers(Mutant):
    kills = "IS-3"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        return super().store([r._replace(body=self._plain(r.body)) for r in records], timeout)

    def _plain(self, body: bytes) -> bytes:
        if not body.startswith(b"u2"):
            return body
        record = Record.decode(body)
        outcome = record.outcome and record.outcome._replace(content_type="json")
        return record._replace(outcome=outcome).encode()
