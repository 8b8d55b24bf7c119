"""A backend that notes what it was asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from upshot.backend import Backend, StoredRecord
from upshot.listening import Listener
from upshot_conformance.layer import Layer

__all__ = ["Spy"]


class Spy(Layer):
    """Behaves as the backend below it; make one with `Spy.above(backend)`.

    Attributes:
        calls: the names of the hooks that were called, in order.
    """

    calls: list[str]

    def __init__(self, below: Backend) -> None:
        super().__init__(below)
        self.calls = []

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        self.calls.append("store")
        return super().store(records, timeout)

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        self.calls.append("load")
        return super().load(keys, timeout)

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        self.calls.append("delete")
        super().delete(keys, timeout)

    def listen(self, timeout: float) -> Listener | None:
        self.calls.append("listen")
        return super().listen(timeout)

    def scan(self, prefix: str, timeout: float) -> Iterator[str]:
        self.calls.append("scan")
        return super().scan(prefix, timeout)
