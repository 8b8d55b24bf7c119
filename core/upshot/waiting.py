"""The wait hub: one thread and one connection for every waiter of an open backend.

No wake-up can be lost, because the order never changes: a waiter registers, *then* the listener
subscribes, *then* the record is read once. From there on, notifications are hints: the hub reads
again when one arrives, after every reconnection, and at least every second.

Services that push get one `Listener`; for the others the same thread reads all awaited records in
one batch, at growing intervals. Waiters are `Sink`s: a blocked thread, an asyncio future or a set
of ten thousand results are the same to the hub.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Container, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, Generic, Protocol, TypeVar

from upshot import clock
from upshot.errors import (
    ResultForgottenError,
    ServiceClosedError,
    ServiceUnavailableError,
    UpshotError,
)
from upshot.listening import Hint, Listener
from upshot.retrying import MIN_LOOK, jitter

__all__ = ["Hub", "Sink"]

logger = logging.getLogger(__name__)

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)

_SAFETY_LOOK: Final = 1.0  # seconds between looks that no hint asked for (DESIGN: every second)
_FIRST_PAUSE: Final = 0.001  # seconds between the first looks of a poll
_LATENESS: Final = 0.05  # a poll is late by at most this part of the time already waited
_REMEMBERED: Final = 4096  # forgotten keys: more than any service's news lags behind
_LONGEST_BACKOFF: Final = 1.0  # seconds between attempts to reach a service that is down
_FAREWELL: Final = 0.8  # seconds that `close` waits for the thread; a silent service may hold it


class Sink(Protocol[T_contra]):
    """Whoever waits. `deliver` runs on the hub's thread: it is quick and raises nothing."""

    @property
    def is_gone(self) -> bool:
        """True once nobody can be there any more to take anything."""
        ...

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
        self._left: deque[tuple[tuple[str, ...], Sink[T]]] = deque()
        self._forgotten: OrderedDict[str, None] = OrderedDict()
        # Each key once, and only while it matters: waits may come and go for hours while the
        # service is away, and nobody takes these off.
        self._new: dict[str, None] = {}
        self._gone: dict[str, None] = {}
        self._listener: Listener | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._youngest = 0.0
        self._trouble: UpshotError | None = None
        self._asked_at: float | None = None

    # -- called by any thread ---------------------------------------------------------------

    def watch(self, keys: Iterable[str], sink: Sink[T]) -> None:
        """Deliver each of `keys` to `sink` once, when it ends; each sink has a key at most once.

        Raises:
            ServiceClosedError: the hub was closed.
            RuntimeError: its thread cannot be started now; nothing is known of later calls.
        """
        with self._lock:
            if self._closed:
                raise ServiceClosedError("this backend is closed; open the app's backend again")
            self._settle()
            for key in keys:
                self._sinks.setdefault(key, []).append(sink)
                self._new[key] = None
            self._youngest = clock.monotonic()
            if self._thread is None or not self._thread.is_alive():
                # Known before it starts, which may fail or be interrupted: the next one tries anew.
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._nudge()

    def unwatch(self, keys: Iterable[str], sink: Sink[T]) -> None:
        """Stop delivering `keys` to `sink`; keys that have ended already are ignored.

        It takes no lock and wakes nobody: an abandoned generator gets here whenever the garbage
        collector finds it, also in a thread that holds the lock. The hub notices within a second.
        """
        left = tuple(key for key in keys if key in self._sinks)
        if left:
            self._left.append((left, sink))

    def forget(self, keys: Iterable[str]) -> None:
        """End the waits of this process for `keys`, whose records were just deleted.

        Their notification may have come before their subscription, and without push none comes.
        """
        gone = dict.fromkeys(keys)
        self._finish({key: ResultForgottenError("forgotten during the wait") for key in gone})
        with self._lock:
            for key in gone:
                self._forgotten[key] = None
                self._forgotten.move_to_end(key)
            while len(self._forgotten) > _REMEMBERED:
                self._forgotten.popitem(last=False)
            self._nudge()

    def close(self) -> None:
        """End every wait with ServiceClosedError, stop the thread and close the listener."""
        with self._lock:
            self._closed = True
            thread = self._thread
            self._nudge()
        if thread is not None and thread is not threading.current_thread():
            thread.join(_FAREWELL)

    @property
    def trouble(self) -> UpshotError | None:
        """Why the service cannot be read now, None if it can; shown by waits that time out."""
        asked_at = self._asked_at
        silence = 0.0 if asked_at is None else clock.monotonic() - asked_at
        if self._trouble is None and silence >= MIN_LOOK:
            return ServiceUnavailableError(f"no answer for {silence:.1f} seconds")
        return self._trouble

    def stats(self) -> dict[str, int]:
        """Return the number of awaited `keys`, of `waiters`, and of `threads` and `listeners`."""
        with self._lock:
            self._settle()
            return {
                "keys": len(self._sinks),
                "waiters": sum(len(sinks) for sinks in self._sinks.values()),
                "threads": int(self._thread is not None and self._thread.is_alive()),
                "listeners": int(self._listener is not None),
            }

    # -- the hub's own thread ---------------------------------------------------------------

    def _run(self) -> None:
        with self._lock:
            if self._thread is not threading.current_thread():
                return  # whoever started it was interrupted, and another took its place
        pause = _FIRST_PAUSE
        while self._wait_for_work():
            try:
                self._cycle()
                self._trouble, pause = None, _FIRST_PAUSE
            except Exception as exc:  # the drain thread must outlive whatever a driver raises
                self._note(exc)
                self._disconnect()
                with self._lock:
                    if not self._closed:
                        self._changed.wait(jitter(pause / 2, pause))
                pause = min(pause * 2, _LONGEST_BACKOFF)
        with self._lock:
            keys = list(self._sinks)
        self._finish({key: ServiceClosedError("the backend was closed") for key in keys})
        self._disconnect()  # a driver may take its time for that

    def _wait_for_work(self) -> bool:
        """Sleep while nobody waits; return False once the hub is closed."""
        with self._lock:
            # With a listener open, dropped keys must still be unsubscribed before sleeping.
            self._settle()
            while not (self._closed or self._sinks or (self._gone and self._listener)):
                self._changed.wait()
            return not self._closed

    def _cycle(self) -> None:
        """Watch until the hub closes, nobody waits, or the service fails."""
        with self._asking():
            listener = self._listener or self._listen()
        with self._lock:
            fresh = listener is not self._listener
            self._listener = listener
            if fresh:  # a gap: whatever happened meanwhile was not heard
                self._new = dict.fromkeys(self._sinks)
                self._gone.clear()
        next_look = 0.0
        while True:
            with self._lock:
                self._settle()
                new, self._new = list(self._new), {}
                gone, self._gone = [key for key in self._gone if key not in self._sinks], {}
                if self._closed or not (self._sinks or gone):
                    return
            self._follow(listener, gone, new)
            began = clock.monotonic()
            if began >= next_look:
                with self._lock:
                    self._dismiss()
                    new = list(self._sinks)
            if new and self._look(new) is None and began >= next_look:
                self._trouble = None
            cost = clock.monotonic() - began
            if began >= next_look or listener is None:
                next_look = began + cost + self._pause(cost, listener)
            if self._hear(listener, next_look):
                next_look = min(next_look, began + cost + cost)  # it may have rested that long

    def _follow(self, listener: Listener | None, gone: list[str], new: list[str]) -> None:
        """Have a listener hear of what is awaited, and of nothing else."""
        with self._asking():
            if listener is not None and gone:
                listener.unsubscribe(gone)
            if listener is not None and new:
                listener.subscribe(new)

    @contextmanager
    def _asking(self) -> Generator[None]:
        """Note since when the service has not answered what is asked inside the block."""
        self._asked_at = clock.monotonic()
        try:
            yield
        finally:
            self._asked_at = None

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
        self._heed([hint for hint in hints if hint.key in self._sinks])
        return any(hint.key is None for hint in hints)

    def _heed(self, hints: Sequence[Hint]) -> None:
        """Deliver what hints of awaited keys brought along, and read the others once."""
        ended: dict[str, T | UpshotError] = {}
        unread: list[str] = []
        erased: set[str] = set()
        for key, body in hints:
            if key is None:
                continue
            found = self._decode(key, body) if body else None
            if found is None or isinstance(found, UpshotError):
                unread.append(key)  # anybody may send a hint: only what is stored can be corrupt
            elif key in self._forgotten:
                unread.append(key)  # the id may be in use again, and the news be of its last use
            elif self._is_ended(found):
                ended[key] = found
            if body == b"":
                erased.add(key)
        self._finish(ended)
        if unread:
            self._look(unread, erased)

    def _look(self, keys: Sequence[str], erased: Container[str] = ()) -> UpshotError | None:
        """Read `keys` once and deliver those that ended; return why some could not be read.

        Of `erased` a hint said that the record was deleted. It may be an old one: who uses an id
        again begins to wait while the news that it was forgotten before is still on its way.
        """
        keys = list(dict.fromkeys(keys))
        ended: dict[str, T | UpshotError] = {}
        trouble: UpshotError | None = None
        with self._asking():
            seen = self._load(keys)
        for key, found in zip(keys, seen, strict=True):
            if isinstance(found, ServiceUnavailableError):
                trouble = found
            elif found is None and key in erased:
                ended[key] = ResultForgottenError("forgotten during the wait")
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
            self._settle()
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

    def _settle(self) -> None:
        """Take off the books who left."""
        while self._left:
            keys, sink = self._left.popleft()
            for key in keys:
                sinks = self._sinks.get(key)
                if sinks and sink in sinks:
                    sinks.remove(sink)
                    if not sinks:
                        self._drop(key)

    def _dismiss(self) -> None:
        """Take off the books who cannot be told any more."""
        gone = {key: [s for s in sinks if s.is_gone] for key, sinks in self._sinks.items()}
        self._left.extend(((key,), sink) for key, sinks in gone.items() for sink in sinks)
        self._settle()

    def _drop(self, key: str) -> None:
        if self._sinks.pop(key, None) is not None:
            self._new.pop(key, None)
            if self._listener is not None:  # another one would subscribe to what is awaited only
                self._gone[key] = None

    def _nudge(self) -> None:
        self._changed.notify_all()
        if self._listener is not None:
            self._listener.interrupt()

    def _note(self, exc: Exception) -> None:
        error = self._explain(exc)
        if error is not None:
            if self._trouble is None and not self._closed:
                logger.warning("waiting goes on while the backend cannot be read: %s", error)
            self._trouble = error
        else:
            logger.error("a result backend failed during a wait", exc_info=exc)

    def _disconnect(self) -> None:
        with self._lock:
            listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
