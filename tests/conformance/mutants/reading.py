"""Broken backends: who may read what, how often."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace

from upshot.backend import Backend, Capabilities
from upshot.record import Record

from .kinds import (
    Mutant,
    mark,
)

_PROCESS = os.getpid()


class HandsOutOnce(Mutant):
    kills = "RD-1"

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        found = self.bodies(keys, timeout)
        ended = [k for k, b in zip(keys, found, strict=True) if b and Record.decode(b).is_terminal]
        super().delete(ended, timeout)
        return found


class SharesItsRequest(Mutant):
    kills = "RD-2"

    def __init__(self, below: Backend) -> None:
        super().__init__(below)
        self._request: Sequence[str] = ()

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        self._request = keys
        time.sleep(0.0001)
        return super().load(self._request, timeout)


class ClaimsToBeShared(Mutant):
    kills = "RD-3"
    memory_only = "the others are shared"

    @classmethod
    def declared(cls, below: Capabilities) -> Capabilities:
        return replace(below, shared=True)


class DoesNotSurviveAFork(Mutant):
    kills = "RD-4"

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        if os.getpid() != _PROCESS:
            raise RuntimeError("this connection belongs to another process")
        return super().load(keys, timeout)


class ReadingExtendsExpiry(Mutant):
    kills = "RD-5"

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        found = self.bodies(keys, timeout)
        again = [mark(k, b) for k, b in zip(keys, found, strict=True) if b is not None]
        for each in again:
            self.below.delete([each.key], timeout)
            barrier = Record.decode(each.body).barrier
            self.below.store([each._replace(barrier=barrier, expires=1000)], timeout)
        return found


class HandsOutOncePerClient(Mutant):
    kills = "RD-1"

    def __init__(self, below: Backend) -> None:
        super().__init__(below)
        self._read: set[str] = set()

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        found = self.bodies(keys, timeout)
        fresh = [b if k not in self._read else None for k, b in zip(keys, found, strict=True)]
        self._read.update(k for k, b in zip(keys, fresh, strict=True) if b)
        return fresh


class SharesItsAnswer(Mutant):
    kills = "RD-2"

    def __init__(self, below: Backend) -> None:
        super().__init__(below)
        self._answer: Sequence[bytes | Exception | None] = ()

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        self._answer = super().load(keys, timeout)
        time.sleep(0.0001)
        return self._answer


class NotesThatItWasRead(Mutant):
    kills = "RD-5"

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        found = self.bodies(keys, timeout)
        read = [mark(k + "@read") for k, b in zip(keys, found, strict=True) if b is not None]
        super().store(read, timeout)
        return found


class CountsReaders(Mutant):
    kills = "RD-5"

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        found = self.bodies(keys, timeout)
        for key, body in zip(keys, found, strict=True):
            if body is not None and not (record := Record.decode(body)).is_terminal:
                read = record._replace(token=record.token + "r").encode()
                self.below.store([mark(key, read)._replace(rank=2**30, expires=250)], timeout)
        return found
