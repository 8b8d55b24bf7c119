"""A backend that passes everything on to another, and notes what it was asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from upshot.backend import Backend, StoredRecord
from upshot.waiting import Listener

__all__ = ["Spy"]


class Spy(Backend):
    """Behaves as the backend below it; make one with `Spy.above(backend)`.

    Attributes:
        calls: the names of the hooks that were called, in order.
    """

    below: Backend
    calls: list[str]

    @classmethod
    def above(cls, below: Backend) -> Spy:
        """Return a spy with the declarations of `below`."""
        declared = {"driver_errors": below.driver_errors, "contract": below.contract}
        spy = type(cls.__name__, (cls,), declared)(below)
        assert isinstance(spy, Spy)
        return spy

    def __init__(self, below: Backend) -> None:
        self.below = below
        self.capabilities = below.capabilities
        self.calls = []

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        self.calls.append("store")
        return self.below.store(records, timeout)

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        self.calls.append("load")
        return self.below.load(keys, timeout)

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        self.calls.append("delete")
        self.below.delete(keys, timeout)

    def close(self) -> None:
        self.below.close()

    def listen(self, timeout: float) -> Listener | None:
        self.calls.append("listen")
        return self.below.listen(timeout)

    def scan(self, prefix: str, timeout: float) -> Iterator[str]:
        self.calls.append("scan")
        return self.below.scan(prefix, timeout)
