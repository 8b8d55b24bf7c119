"""Broken backends: which record an id means."""

from __future__ import annotations

import fnmatch
import re
import unicodedata
import zlib
from collections.abc import Sequence
from urllib.parse import unquote

from upshot.listening import Listener

from .kinds import (
    ChangesKeys,
    ChangesListener,
    Mutant,
    PassingListener,
    mark,
)


class IgnoresCase(ChangesKeys):
    kills = "ID-2"

    def other(self, key: str) -> str:
        return key.lower()


class TrimsKeys(ChangesKeys):
    kills = "ID-2"

    def other(self, key: str) -> str:
        return key.rstrip()


class CutsKeysAt250(ChangesKeys):
    kills = "ID-2"

    def other(self, key: str) -> str:
        return key[:250]


class ForgetsByPrefix(Mutant):
    kills = "ID-2"

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        for key in keys:
            super().delete(list(self.scan(key, timeout)), timeout)


class RaisesForUnknown(Mutant):
    kills = "ID-1"

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        found = super().load(keys, timeout)
        if None in found:
            raise LookupError("unknown id")
        return found


class DropsUnknown(Mutant):
    kills = "ID-1"

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        return [body for body in self.bodies(keys, timeout) if body is not None]


class AnswersInItsOwnOrder(Mutant):
    kills = "ID-2"

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        return super().load(sorted(keys), timeout)


class ReadingCreates(Mutant):
    kills = "ID-4"

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        found = super().load(keys, timeout)
        marks = [mark(key + "@asked") for key in keys]
        super().store(marks, timeout)
        return found


class NormalisesKeys(ChangesKeys):
    kills = "ID-2"

    def other(self, key: str) -> str:
        return unicodedata.normalize("NFC", key)


class UnifiesLookalikes(ChangesKeys):
    kills = "ID-2"

    def other(self, key: str) -> str:
        return unicodedata.normalize("NFKC", key)


class HashesKeysByChecksum(ChangesKeys):
    kills = "ID-2"

    def other(self, key: str) -> str:
        namespace, _, task_id = key.partition(":")
        return f"{namespace}:{zlib.crc32(task_id.encode()):08x}" if task_id else key


class CleansKeys(ChangesKeys):
    kills = "ID-2"

    def other(self, key: str) -> str:
        namespace, separator, task_id = key.partition(":")
        return namespace + separator + re.sub(r"[^\w.-]", "_", task_id)


class SplitsKeysAtColons(ChangesKeys):
    kills = "ID-2"

    def other(self, key: str) -> str:
        return ":".join(part for part in key.split(":") if part)


class DecodesIds(ChangesKeys):
    kills = "ID-2"

    def other(self, key: str) -> str:
        namespace, separator, task_id = key.partition(":")
        return namespace + separator + unquote(task_id)


class ForgetsByWildcard(Mutant):
    kills = "ID-2"

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        for key in keys:
            pattern = re.escape(key[8:]).replace("%", ".*").replace("_", ".")
            alike = self.scan(key[:8], timeout)
            super().delete([each for each in alike if re.fullmatch(pattern, each[8:])], timeout)
            super().delete([key], timeout)


class ForgetsByGlob(Mutant):
    kills = "ID-2"

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        for key in keys:
            alike = self.scan(key.partition(":")[0], timeout)
            super().delete([e for e in alike if e == key or fnmatch.fnmatchcase(e, key)], timeout)


class EmptyForUnknown(Mutant):
    kills = "ID-1"

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        return [body or b"" for body in self.bodies(keys, timeout)]


class NotesWhoIsAwaited(ChangesListener):
    kills = "ID-4"
    memory_only = "not every other has a listener"

    def heard(self, below: Listener) -> Listener:
        return _Noting(below, self)


class _Noting(PassingListener):
    def __init__(self, below: Listener, mutant: Mutant) -> None:
        super().__init__(below)
        self._mutant = mutant

    def subscribe(self, keys: Sequence[str]) -> None:
        self._mutant.store([mark(key + "@awaited") for key in keys], 5)
        super().subscribe(keys)
