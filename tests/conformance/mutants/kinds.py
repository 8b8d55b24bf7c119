"""What broken backends are made of: layers over a backend that conforms."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from upshot.backend import Backend, Capabilities, StoredRecord
from upshot.listening import Listener
from upshot.states import NEVER
from upshot.url import Url
from upshot_conformance.layer import Layer, ListenerLayer


class Mutant(Layer):
    """One small, plausible bug; a subclass overrides a hook and names the clause."""

    kills: ClassVar[str]
    """The clause that must go red; "" for a control, which must stay green."""

    disruptive: ClassVar[bool] = False
    """It takes tests that disturb the service to find it."""

    url: Url
    """Where it was told to be, with the password."""

    memory_only: ClassVar[str] = ""
    """Why it is a bug above `memory://` only; "" if it is one above any backend."""

    network_only: ClassVar[str] = ""
    """Why it is a bug only above a service that is reached by network; "" if above any."""

    push_only: ClassVar[str] = ""
    """Why it is a bug only above a backend that pushes; "" if above any."""

    login_only: ClassVar[str] = ""
    """Why it is a bug only above a backend that takes a password; "" if above any."""

    @classmethod
    def is_a_bug_above(cls, scheme: str) -> bool:
        """Tell whether its clause must go red above the backend of a scheme."""
        if cls.memory_only:
            return scheme == "memory"
        if scheme == "sqlite" and (cls.push_only or cls.login_only):
            return False
        return not cls.network_only or scheme in ("redis", "postgresql")

    def __init__(self, below: Backend) -> None:
        super().__init__(below)
        self.capabilities = self.declared(below.capabilities)

    @classmethod
    def declared(cls, below: Capabilities) -> Capabilities:
        """Return what the mutant declares, given what the backend below it does."""
        return below

    def bodies(self, keys: Sequence[str], timeout: float) -> list[bytes | None]:
        """Load from the backend below, which has one server only."""
        found: list[bytes | None] = []
        for body in self.below.load(keys, timeout):
            if isinstance(body, Exception):
                raise body
            found.append(body)
        return found


def always(record: StoredRecord) -> StoredRecord:
    """Return a record that replaces whatever is stored."""
    return record._replace(rank=NEVER)


def mark(key: str, body: bytes = b"") -> StoredRecord:
    """Return something to store that is no result."""
    return StoredRecord(
        key=key, body=body, rank=1, barrier=1, expires=60, task_id="", state="", name="",
        reply_to="",
    )  # fmt: skip


class ChangesRecords(Mutant):
    """Stores something else than it was given."""

    @abstractmethod
    def changed(self, record: StoredRecord) -> StoredRecord:
        """Return what is stored in place of a record."""

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        return super().store(list(map(self.changed, records)), timeout)


class ChangesKeys(Mutant):
    """Stores under another key than it was told."""

    @abstractmethod
    def other(self, key: str) -> str:
        """Return the key that is used in place of one."""

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        return super().store([r._replace(key=self.other(r.key)) for r in records], timeout)

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        return super().load(list(map(self.other, keys)), timeout)

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        super().delete(list(map(self.other, keys)), timeout)


PassingListener = ListenerLayer
"""Passes everything on but what a mutant overrides."""


class ChangesListener(Mutant):
    """Hears otherwise than the backend below it."""

    push_only = "without push there is nothing to hear"

    @abstractmethod
    def heard(self, below: Listener) -> Listener:
        """Return what listens in place of the listener below."""

    def listen(self, timeout: float) -> Listener | None:
        below = super().listen(timeout)
        return None if below is None else self.heard(below)
