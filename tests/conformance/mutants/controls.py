"""Backends that are odd and keep every clause: they must stay green."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from upshot.backend import Capabilities, StoredRecord
from upshot.listening import Hint, Listener

from .kinds import (
    ChangesListener,
    Mutant,
    PassingListener,
)


class Modest(Mutant):
    """No mutant: can do more than it declares."""

    kills = ""

    @classmethod
    def declared(cls, below: Capabilities) -> Capabilities:
        return replace(below, reread=False, intermediate=False)


class Humble(Mutant):
    """No mutant: refuses, or declares not to do, all that can be."""

    kills = ""

    @classmethod
    def declared(cls, below: Capabilities) -> Capabilities:
        return replace(
            below, push=False, batch=False, scan=False, transactional=False, text_keys=False,
            streams=False, expiry_resolution=None, max_record_bytes=2**17, max_key_bytes=250,
        )  # fmt: skip

    def listen(self, timeout: float) -> Listener | None:
        return None


class Slow(Mutant):
    """No mutant: keeps every clause, five milliseconds late."""

    kills = ""

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        time.sleep(0.005)
        return super().store(records, timeout)

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        time.sleep(0.005)
        return super().load(keys, timeout)


class Talkative(ChangesListener):
    """No mutant: keeps every clause, and notifies without need."""

    kills = ""

    def heard(self, below: Listener) -> Listener:
        return _Echo(below)


class _Echo(PassingListener):
    def wait(self, timeout: float) -> Sequence[Hint]:
        heard = self._below.wait(timeout)
        return [*heard, *heard, Hint("somebody else's", None), Hint(None)]
