"""The wait hub: one thread and one connection for every waiter of an open backend.

No wake-up can be lost, because the order never changes: a waiter registers, *then* the listener
subscribes, *then* the record is read once. From there on, notifications are hints: the hub reads
again when one arrives, after every reconnection, and at least every second.

Services that push get one `Listener`; for the others the same thread reads all awaited records in
one batch, at growing intervals. Waiters are `Sink`s: a blocked thread, an asyncio future or a set
of ten thousand results are the same to the hub.
"""

from __future__ import annotations

import abc
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from upshot import clock
from upshot.errors import (
    ResultForgottenError,
    ServiceClosedError,
    ServiceUnavailableError,
    UpshotError,
)
from upshot.retrying import jitter

__all__ = ["Hint", "Hub", "Listener", "Sink"]

logger = logging.getLogger(__name__)

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)

_SAFETY_LOOK: Final = 1.0  # seconds between looks that no hint asked for (DESIGN: every second)
_FIRST_PAUSE: Final = 0.001  # seconds between the first looks of a poll
_LATENESS: Final = 0.05  # a poll is late by at most this part of the time already waited
_FORGOTTEN: Final = "the result was forgotten during the wait"
_LONGEST_BACKOFF: Final = 1.0  # seconds between attempts to reach a service that is down


class Hint(NamedTuple):
    """What a listener heard.

    Attributes:
        key: whose record changed; None if anything may have changed.
        body: the encoded record if it came along, b"" if the record was deleted, None if the
            hub has to read it.
    """

    key: str | None
    body: bytes | None = None


class Listener(abc.ABC):
    """One push connection of a backend. Every method but `interrupt` runs on the hub's thread.

    Any driver error raised here is a gap: the hub closes the listener, opens another, subscribes
    anew to everything awaited and reads it all once.
    """

    @abc.abstractmethod
    def subscribe(self, keys: Sequence[str]) -> None:
        """Begin to hear of `keys`. When this returns, no later change may be missed."""

    @abc.abstractmethod
    def unsubscribe(self, keys: Sequence[str]) -> None:
        """Stop hearing of `keys`; unknown ones are ignored."""

    @abc.abstractmethod
    def wait(self, timeout: float) -> Sequence[Hint]:
        """Block for at most `timeout` seconds and return what was heard, possibly nothing."""

    @abc.abstractmethod
    def interrupt(self) -> None:
        """Make the running `wait`, or else the next one, return soon. Called by any thread."""

    @abc.abstractmethod
    def close(self) -> None:
        """Give the connection back; idempotent, raises nothing."""


class Sink(Protocol[T_contra]):
    """Whoever waits. `deliver` runs on the hub's thread: it is quick and raises nothing."""

    def deliver(self, ended: Sequence[tuple[str, T_contra | UpshotError]]) -> None:
        """Take the keys that ended, each with its terminal record or the error that ends it."""


class Hub(Generic[T]):
    """Watches keys for any number of sinks; starts its thread with the first one.

    Args:
        load: reads a batch of keys; answers per key a record, None, or an error that ends the
            wait for this key alone. ServiceUnavailableError ends none: it is asked again.
        decode: turns a pushed body into what `load` would have answered.
        is_ended: tells whether a record ends the wait.
        listen: opens a push connection, or returns None where the service cannot push.
        explain: says which upshot error a driver's exception means; None for a defect.
        poll_interval: longest pause between two looks without push, in seconds.
        name: the thread's name.
    """

    def __init__(
        self,
        *,
        load: Callable[[Sequence[str]], Sequence[T | UpshotError | None]],
        decode: Callable[[str, bytes], T | UpshotError],
        is_ended: Callable[[T], bool],
        listen: Callable[[], Listener | None],
        explain: Callable[[Exception], UpshotError | None],
        poll_interval: float,
        name: str,
    ) -> None:
        self._load = load
        self._decode = decode
        self._is_ended = is_ended
        self._listen = listen
        self._explain = explain
        self._poll_interval = poll_interval
        self._name = name
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._sinks: dict[str, list[Sink[T]]] = {}
        self._new: list[str] = []
        self._gone: list[str] = []
        self._listener: Listener | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._youngest = 0.0
        self.trouble: UpshotError | None = None
        """Why the service cannot be read now, None if it can; shown by waits that time out."""

    # -- called by any thread ---------------------------------------------------------------

    def watch(self, keys: Iterable[str], sink: Sink[T]) -> None:
        """Deliver each of `keys` to `sink` once, when it ends; each sink has a key at most once.

        Raises:
            ServiceClosedError: the hub was closed.
        """
        with self._lock:
            if self._closed:
                raise ServiceClosedError("this backend is closed; open the app's backend again")
            for key in keys:
                self._sinks.setdefault(key, []).append(sink)
                self._new.append(key)
            self._youngest = clock.monotonic()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._nudge()

    def unwatch(self, keys: Iterable[str], sink: Sink[T]) -> None:
        """Stop delivering `keys` to `sink`; keys that have ended already are ignored."""
        with self._lock:
            for key in keys:
                sinks = self._sinks.get(key)
                if sinks and sink in sinks:
                    sinks.remove(sink)
                    if not sinks:
                        self._drop(key)
            self._nudge()

    def forget(self, keys: Iterable[str]) -> None:
        """End the waits of this process for `keys`, whose records were just deleted.

        Their notification may have come before their subscription, and without push none comes.
        """
        self._finish({key: ResultForgottenError(_FORGOTTEN) for key in keys})
        with self._lock:
            self._nudge()

    def close(self) -> None:
        """End every wait with ServiceClosedError, stop the thread and close the listener."""
        with self._lock:
            self._closed = True
            thread = self._thread
            self._nudge()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=2 * _SAFETY_LOOK)

    def stats(self) -> dict[str, int]:
        """Return the number of awaited `keys`, of `waiters`, and of `threads` and `listeners`."""
        with self._lock:
            return {
                "keys": len(self._sinks),
                "waiters": sum(len(sinks) for sinks in self._sinks.values()),
                "threads": int(self._thread is not None and self._thread.is_alive()),
                "listeners": int(self._listener is not None),
            }

    # -- the hub's own thread ---------------------------------------------------------------

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        while self._wait_for_work():
            try:
                self._cycle()
                self.trouble, pause = None, _FIRST_PAUSE
            except Exception as exc:  # the drain thread must outlive whatever a driver raises
                self._note(exc)
                self._disconnect()
                with self._lock:
                    if not self._closed:
                        self._changed.wait(jitter(pause / 2, pause))
                pause = min(pause * 2, _LONGEST_BACKOFF)
        self._disconnect()
        with self._lock:
            keys = list(self._sinks)
        self._finish({key: ServiceClosedError("the backend was closed") for key in keys})

    def _wait_for_work(self) -> bool:
        """Sleep while nobody waits; return False once the hub is closed."""
        with self._lock:
            # With a listener open, dropped keys must still be unsubscribed before sleeping.
            while not (self._closed or self._sinks or (self._gone and self._listener)):
                self._changed.wait()
            return not self._closed

    def _cycle(self) -> None:
        """Watch until the hub closes, nobody waits, or the service fails."""
        listener = self._listener or self._listen()
        with self._lock:
            fresh = listener is not self._listener
            self._listener = listener
            if fresh:  # a gap: whatever happened meanwhile was not heard
                self._new = list(self._sinks)
                self._gone.clear()
        next_look = 0.0
        while True:
            with self._lock:
                new, self._new = [key for key in self._new if key in self._sinks], []
                gone, self._gone = [key for key in self._gone if key not in self._sinks], []
                if self._closed or not (self._sinks or gone):
                    return
            if listener is not None and gone:
                listener.unsubscribe(gone)
            if listener is not None and new:
                listener.subscribe(new)
            began = clock.monotonic()
            if began >= next_look:
                with self._lock:
                    new = list(self._sinks)
            if new and self._look(new) is None and began >= next_look:
                self.trouble = None
            cost = clock.monotonic() - began
            if began >= next_look or listener is None:
                next_look = began + cost + self._pause(cost, listener)
            if self._hear(listener, next_look):
                next_look = min(next_look, clock.monotonic() + cost)

    def _pause(self, cost: float, listener: Listener | None) -> float:
        """Return how long to rest between two looks at everything, in seconds.

        Never shorter than a look takes, so that the hub spends at most half its time reading.
        """
        if listener is not None:
            return max(_SAFETY_LOOK, cost)
        waited = clock.monotonic() - self._youngest
        return max(cost, min(self._poll_interval, max(_FIRST_PAUSE, waited * _LATENESS)))

    def _hear(self, listener: Listener | None, until: float) -> bool:
        """Wait for hints, new waiters or `until`; return True if anything may have changed."""
        timeout = max(0.0, until - clock.monotonic())
        if listener is None:
            with self._lock:
                if not (self._new or self._closed):
                    self._changed.wait(timeout)
            return False
        with self._lock:
            if self._new or self._gone or self._closed:
                timeout = 0.0
        hints = listener.wait(timeout)
        ended: dict[str, T | UpshotError] = {}
        unread: list[str] = []
        for hint in hints:
            if hint.key is None or hint.key not in self._sinks:
                continue
            if hint.body is None:
                unread.append(hint.key)
            elif not hint.body:
                ended[hint.key] = ResultForgottenError(_FORGOTTEN)
            else:
                found = self._decode(hint.key, hint.body)
                if isinstance(found, UpshotError) or self._is_ended(found):
                    ended[hint.key] = found
        self._finish(ended)
        if unread:
            self._look(list(dict.fromkeys(unread)))
        return any(hint.key is None for hint in hints)

    def _look(self, keys: Sequence[str]) -> UpshotError | None:
        """Read `keys` once and deliver those that ended; return why some could not be read."""
        keys = list(dict.fromkeys(keys))
        ended: dict[str, T | UpshotError] = {}
        trouble: UpshotError | None = None
        for key, found in zip(keys, self._load(keys), strict=True):
            if isinstance(found, ServiceUnavailableError):
                trouble = found
            elif found is not None and (isinstance(found, UpshotError) or self._is_ended(found)):
                ended[key] = found
        self._finish(ended)
        if trouble is not None:
            self._note(trouble)
        return trouble

    def _finish(self, ended: Mapping[str, T | UpshotError]) -> None:
        """Take ended keys off the books and deliver them, one batch per sink."""
        batches: dict[int, tuple[Sink[T], list[tuple[str, T | UpshotError]]]] = {}
        with self._lock:
            for key, found in ended.items():
                for sink in self._sinks.get(key, ()):
                    batches.setdefault(id(sink), (sink, []))[1].append((key, found))
                self._drop(key)
        for sink, batch in batches.values():
            try:
                sink.deliver(batch)
            except Exception:  # one waiter's mistake must not end the others' waits
                logger.exception("a waiter failed to take its result")

    # -- shared, under the lock ---------------------------------------------------------------

    def _drop(self, key: str) -> None:
        if self._sinks.pop(key, None) is not None:
            self._gone.append(key)

    def _nudge(self) -> None:
        self._changed.notify_all()
        if self._listener is not None:
            self._listener.interrupt()

    def _note(self, exc: Exception) -> None:
        error = self._explain(exc)
        if error is not None:
            if self.trouble is None and not self._closed:
                logger.warning("waiting goes on while the backend cannot be read: %s", error)
            self.trouble = error
        else:
            logger.error("a result backend failed during a wait", exc_info=exc)

    def _disconnect(self) -> None:
        with self._lock:
            listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
