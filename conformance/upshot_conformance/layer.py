"""A backend that passes everything on to another: what is odd, or broken, overrides one hook.

Tests look through one at what is asked of a backend, and the suite is tested by broken ones, which
are layers over backends that conform.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Self

from upshot.backend import Backend, StoredRecord
from upshot.listening import Hint, Listener

__all__ = ["Layer", "ListenerLayer"]


class Layer(Backend):
    """Behaves as the backend below it; make one with `Layer.above(backend)`.

    Attributes:
        below: the backend that does the work.
    """

    below: Backend

    @classmethod
    def above(cls, below: Backend) -> Self:
        """Return a layer with the declarations of `below`."""
        declared = {
            "driver_errors": below.driver_errors,
            "contract": below.contract,
            "over_broker": below.over_broker,
        }
        layer = type(cls.__name__, (cls,), declared)
        made = layer(below)
        assert isinstance(made, cls)
        return made

    def __init__(self, below: Backend) -> None:
        self.below = below
        self.capabilities = below.capabilities
        self.reply_to = below.reply_to

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        return self.below.store(records, timeout)

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        return self.below.load(keys, timeout)

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        self.below.delete(keys, timeout)

    def close(self) -> None:
        self.below.close()

    def listen(self, timeout: float) -> Listener | None:
        return self.below.listen(timeout)

    def scan(self, prefix: str, timeout: float) -> Iterator[str]:
        return self.below.scan(prefix, timeout)


class ListenerLayer(Listener):
    """Behaves as the listener below it."""

    def __init__(self, below: Listener) -> None:
        self._below = below

    def subscribe(self, keys: Sequence[str]) -> None:
        self._below.subscribe(keys)

    def unsubscribe(self, keys: Sequence[str]) -> None:
        self._below.unsubscribe(keys)

    def wait(self, timeout: float) -> Sequence[Hint]:
        return self._below.wait(timeout)

    def interrupt(self) -> None:
        self._below.interrupt()

    def close(self) -> None:
        self._below.close()
