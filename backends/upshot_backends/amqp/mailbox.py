"""Where carried records end up: the memory of the process that submitted their tasks."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, final

from upshot import clock
from upshot.listening import Hint, Listener
from upshot.seldom import Seldom
from upshot.states import NEVER
from upshot_backends.amqp.replies import Reply

__all__ = ["Mailbox", "MailboxListener"]

logger = logging.getLogger(__name__)

_MOST_UNEXPECTED: Final = 10_000  # records that nobody here is known to wait for
_UNEXPECTED_BYTES: Final = 64 * 2**20  # and the length of their bodies in all
_SWEEP: Final = 60.0  # seconds between two sweeps for what has expired


class _Slot(NamedTuple):
    body: bytes
    barrier: int
    expires_at: float  # on the monotonic clock; infinite for "never"
    expected: bool


@final
class Mailbox:
    """The records that have come to this process, under the guard of `Backend.store`.

    A key is expected from the moment that this process stores a record under it: QUEUED, when it
    submits the task. What comes for other keys, because they were forgotten or by mistake, is
    kept too, but only the latest 10 000 records and 64 MiB of that.

    Args:
        seed: finished records to begin with, by key; a forked child gets its parent's.
    """

    def __init__(self, seed: Mapping[str, _Slot] | None = None) -> None:
        self._lock = threading.Lock()
        self._slots: dict[str, _Slot] = dict(seed or {})
        self._unexpected: OrderedDict[str, int] = OrderedDict()
        self._unexpected_bytes = 0
        self._listeners: set[MailboxListener] = set()
        self._next_sweep = clock.monotonic() + _SWEEP
        self._complaint = Seldom()

    def put(self, reply: Reply, *, expected: bool) -> bool:
        """Apply a record under the guard, and tell whether it was applied.

        Args:
            reply: the record.
            expected: this process itself stores it; otherwise it is so if its key is expected.
        """
        with self._lock:
            self._sweep()
            stored = self._live(reply.key)
            if stored is not None and stored.barrier > reply.rank:
                return False
            expected = expected or (stored is not None and stored.expected)
            seconds = float("inf") if reply.expires is None else reply.expires
            self._remove(reply.key)
            self._slots[reply.key] = _Slot(
                reply.body, reply.barrier, clock.monotonic() + seconds, expected
            )
            if reply.barrier == NEVER:
                self._tell(reply.key, reply.body)
            if not expected:
                self._unexpected[reply.key] = len(reply.body)
                self._unexpected_bytes += len(reply.body)
                self._bound()
            return True

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the body under each key, None for what is not there or has expired."""
        with self._lock:
            return [slot and slot.body for slot in map(self._live, keys)]

    def delete(self, keys: Sequence[str]) -> None:
        """Remove the keys, and tell whoever listens."""
        with self._lock:
            for key in keys:
                self._remove(key)
                self._tell(key, b"")

    def keys(self, prefix: str) -> list[str]:
        """Return the keys that begin with `prefix`."""
        with self._lock:
            return [key for key in self._slots if key.startswith(prefix)]

    def finished(self) -> dict[str, _Slot]:
        """Return the terminal records, by key. For a forked child, so it takes no lock."""
        return {key: slot for key, slot in self._slots.items() if slot.barrier == NEVER}

    def listen(self) -> MailboxListener:
        """Return a listener of its own for one hub."""
        listener = MailboxListener(self)
        with self._lock:
            self._listeners.add(listener)
        return listener

    def unlisten(self, listener: MailboxListener) -> None:
        """Tell `listener` nothing any more."""
        with self._lock:
            self._listeners.discard(listener)

    # -- under the lock ---------------------------------------------------------------------

    def _live(self, key: str) -> _Slot | None:
        slot = self._slots.get(key)
        if slot is not None and slot.expires_at <= clock.monotonic():
            self._remove(key)
            return None
        return slot

    def _remove(self, key: str) -> None:
        self._slots.pop(key, None)
        self._unexpected_bytes -= self._unexpected.pop(key, 0)

    def _sweep(self) -> None:
        """Drop what expired and nobody asked for, so that memory stays bounded."""
        if clock.monotonic() >= self._next_sweep:
            self._next_sweep = clock.monotonic() + _SWEEP
            for key in list(self._slots):
                self._live(key)

    def _bound(self) -> None:
        """Drop the oldest of what nobody expects, while it is too much."""
        while (
            len(self._unexpected) > _MOST_UNEXPECTED or self._unexpected_bytes > _UNEXPECTED_BYTES
        ):
            self._remove(next(iter(self._unexpected)))
            if self._complaint.is_due():
                logger.warning(
                    "results are dropped that this process did not ask for, or has forgotten: "
                    "more than %d of them came, or more than %d bytes",
                    _MOST_UNEXPECTED,
                    _UNEXPECTED_BYTES,
                )

    def _tell(self, key: str, body: bytes) -> None:
        for listener in self._listeners:
            listener.tell(Hint(key, body))


@final
class MailboxListener(Listener):
    """Hears of keys through a deque that the thread appends to which takes the replies in."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._keys: set[str] = set()
        self._heard: deque[Hint] = deque()
        self._awake = threading.Event()

    def tell(self, hint: Hint) -> None:
        """Take a hint from any thread; quick, and raises nothing."""
        if hint.key in self._keys:
            self._heard.append(hint)
            self._awake.set()

    def subscribe(self, keys: Sequence[str]) -> None:
        self._keys.update(keys)

    def unsubscribe(self, keys: Sequence[str]) -> None:
        self._keys.difference_update(keys)

    def wait(self, timeout: float) -> Sequence[Hint]:
        self._awake.wait(timeout)
        self._awake.clear()
        return [self._heard.popleft() for _ in range(len(self._heard))]

    def interrupt(self) -> None:
        self._awake.set()

    def close(self) -> None:
        self._mailbox.unlisten(self)
