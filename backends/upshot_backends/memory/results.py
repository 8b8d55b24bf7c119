"""Results in this process's memory.

Service: none. What it cannot do: outlive the process, or be seen by another one.
Layout: one dict per URL, shared by all that open the same URL in this process.

This is the backend to read first: each hook is the contract in a few lines.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from upshot import clock, forking
from upshot.backend import Backend, Capabilities, StoredRecord
from upshot.listening import Hint, Listener
from upshot.states import NEVER
from upshot.url import Url

__all__ = ["MemoryBackend", "NoOptions"]


@dataclass(frozen=True)
class NoOptions:
    """There are no `upshot_…` parameters: a misspelt one is an error, not a silence."""


class _Slot(NamedTuple):
    body: bytes
    barrier: int
    expires_at: float  # on the monotonic clock; infinite for "never"


class _Shelf:
    """What every `MemoryBackend` of one URL shares."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.slots: dict[str, _Slot] = {}
        self.listeners: set[_MemoryListener] = set()
        self.next_sweep = clock.monotonic() + _SWEEP
        forking.register(self)

    def after_fork(self) -> None:
        """Go on with a copy of the records: another thread may have held the parent's lock."""
        self.lock = threading.Lock()
        self.listeners = set()

    def live(self, key: str) -> _Slot | None:
        slot = self.slots.get(key)
        if slot is not None and slot.expires_at <= clock.monotonic():
            del self.slots[key]
            return None
        return slot

    def sweep(self) -> None:
        """Drop what expired and nobody asked for, so that memory stays bounded."""
        if clock.monotonic() >= self.next_sweep:
            self.next_sweep = clock.monotonic() + _SWEEP
            for key in list(self.slots):
                self.live(key)

    def tell(self, key: str, body: bytes) -> None:
        for listener in self.listeners:
            listener.tell(Hint(key, body))


_SWEEP: Final = 60.0  # seconds between two sweeps
_SHELVES: Final[dict[str, _Shelf]] = {}


class MemoryBackend(Backend):
    """`memory://`, or `memory://name` for a store of its own. There are no options."""

    capabilities = Capabilities(
        shared=False,
        reread=True,
        intermediate=True,
        atomic=True,
        push=True,
        persistent=False,
        transactional=True,
        batch=True,
        scan=True,
        streams=True,
        visibility=0.0,
        poll_interval=0.05,
        expiry_resolution=0.0,
        max_record_bytes=2**30,
        max_key_bytes=1024,
        text_keys=True,
    )

    def __init__(self, url: Url) -> None:
        url.read_options(NoOptions)
        self._shelf = _SHELVES.setdefault(url.driver_url(), _Shelf())

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        shelf = self._shelf
        applied: list[bool] = []
        with shelf.lock:
            shelf.sweep()
            for record in records:
                stored = shelf.live(record.key)
                applies = stored is None or stored.barrier <= record.rank
                if applies:
                    seconds = float("inf") if record.expires is None else record.expires
                    expires_at = clock.monotonic() + seconds
                    shelf.slots[record.key] = _Slot(record.body, record.barrier, expires_at)
                    if record.barrier == NEVER:
                        shelf.tell(record.key, record.body)
                applied.append(applies)
        return applied

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | None]:
        with self._shelf.lock:
            return [slot and slot.body for slot in map(self._shelf.live, keys)]

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        with self._shelf.lock:
            for key in keys:
                self._shelf.slots.pop(key, None)
                self._shelf.tell(key, b"")

    def close(self) -> None:
        """Nothing is open; the records stay for others who opened the same URL."""

    def listen(self, timeout: float) -> Listener:
        return _MemoryListener(self._shelf)

    def scan(self, prefix: str, timeout: float) -> Iterator[str]:
        with self._shelf.lock:
            return iter([key for key in self._shelf.slots if key.startswith(prefix)])


class _MemoryListener(Listener):
    """Hears of keys through a deque that storing threads append to."""

    def __init__(self, shelf: _Shelf) -> None:
        self._shelf = shelf
        self._keys: set[str] = set()
        self._heard: deque[Hint] = deque()
        self._awake = threading.Event()
        with shelf.lock:
            shelf.listeners.add(self)

    def tell(self, hint: Hint) -> None:
        """Take a hint from a storing thread, which holds the shelf's lock."""
        if hint.key in self._keys:
            self._heard.append(hint)
            self._awake.set()

    def subscribe(self, keys: Sequence[str]) -> None:
        with self._shelf.lock:
            self._keys.update(keys)

    def unsubscribe(self, keys: Sequence[str]) -> None:
        with self._shelf.lock:
            self._keys.difference_update(keys)

    def wait(self, timeout: float) -> Sequence[Hint]:
        self._awake.wait(timeout)
        self._awake.clear()
        return [self._heard.popleft() for _ in range(len(self._heard))]

    def interrupt(self) -> None:
        self._awake.set()

    def close(self) -> None:
        with self._shelf.lock:
            self._shelf.listeners.discard(self)
