"""Looks into the memory backend's shelves, without asking the backend."""

from __future__ import annotations

import contextlib
import secrets
import sys
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager
from typing import ClassVar, Protocol, cast

from upshot import clock
from upshot_backends.memory import results
from upshot_conformance.harness import Harness, NotApplicableError

__all__ = ["MemoryHarness"]


class _Slot(Protocol):
    body: bytes
    barrier: int
    expires_at: float


class _Shelf(Protocol):
    slots: dict[str, _Slot]
    listeners: set[object]


class MemoryHarness(Harness):
    """The "server objects" of `memory://` are the slots of its dict."""

    scheme: ClassVar[str] = "memory"
    over_network: ClassVar[bool] = False

    @classmethod
    @contextlib.contextmanager
    def start(cls) -> Generator[str]:
        """Name a shelf that nobody else uses."""
        yield f"memory://conformance-{secrets.token_hex(4)}"

    def raw_objects(self, namespace: str) -> set[str]:
        shelf = self._shelf
        return {key for key in list(shelf.slots) if namespace in key} if shelf else set()

    def purge(self, namespace: str) -> None:
        shelf = self._shelf
        for name in self.raw_objects(namespace):
            if shelf:
                shelf.slots.pop(name, None)

    def server_version(self) -> str:
        return f"Python {sys.version.split()[0]}"

    def read_raw(self, name: str) -> bytes:
        slot = self._slots[name]
        return b"%d " % slot.barrier + slot.body

    def ttl(self, name: str) -> float | None:
        expires_at = self._slots[name].expires_at
        return None if expires_at == float("inf") else expires_at - clock.monotonic()

    def writes_blocked(self) -> AbstractContextManager[None]:
        raise NotApplicableError("no write to this process's own memory can fail")

    def subscriptions(self, namespace: str) -> set[str]:
        heard = [cast("set[str]", vars(each)["_keys"]) for each in self._listeners]
        return {key for keys in heard for key in list(keys) if namespace in key}

    def connections(self) -> int:
        return len(self._listeners)

    @property
    def _shelf(self) -> _Shelf | None:
        # Behind the backend's back, as every harness; a module has no private parts for vars().
        shelves = cast("Mapping[str, _Shelf]", vars(results)["_SHELVES"])
        return shelves.get(self.url.driver_url())

    @property
    def _slots(self) -> dict[str, _Slot]:
        shelf = self._shelf
        return shelf.slots if shelf else {}

    @property
    def _listeners(self) -> list[object]:
        shelf = self._shelf
        return list(shelf.listeners) if shelf else []
