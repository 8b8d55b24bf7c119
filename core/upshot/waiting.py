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
from collections import deque
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Final, Generic, TypeVar

from upshot import clock
from upshot.errors import (
    ResultForgottenError,
    ServiceClosedError,
    ServiceUnavailableError,
    UpshotError,
)
from upshot.lending import Forgotten, Lender, Loan, Look
from upshot.listening import Hint, Listener
from upshot.retrying import jitter
from upshot.troubles import Troubles
from upshot.waiters import Sink

__all__ = ["Hub"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_SAFETY_LOOK: Final = 1.0  # seconds between looks that no hint asked for (DESIGN: every second)
_FIRST_PAUSE: Final = 0.001  # seconds between the first looks of a poll
_LATENESS: Final = 0.05  # a poll is late by at most this part of the time already waited
_HUSHING: Final = 0.02  # seconds between two times that ended keys are unsubscribed, all at once
_LONGEST_BACKOFF: Final = 1.0  # seconds between attempts to reach a service that is down
_FAREWELL: Final = 0.8  # seconds that `close` waits for the thread; a silent service may hold it


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
        self.troubles = Troubles(explain)  # shown by waits that time out
        self._poll_interval = poll_interval
        self._name = name
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._sinks: dict[str, list[Sink[T]]] = {}
        self._left: deque[tuple[tuple[str, ...], Sink[T]]] = deque()
        self._forgotten = Forgotten()
        # Each key once: waits may come and go for hours while the service is away.
        self._new: dict[str, None] = {}
        self._gone: dict[str, None] = {}
        self._listener: Listener | None = None
        self._thread: threading.Thread | None = None
        self._lender = Lender[T](self._changed)
        self._closed = False
        self._youngest = 0.0

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

    def attend(self, key: str, deadline: clock.Deadline, look: Look[T]) -> T | UpshotError | None:
        """Wait for one key in the calling thread, if it is the only one that waits.

        Returns:
            What ended the wait; None if it has to go on with `watch`, or the deadline has passed.
        """
        with self._lock:
            self._settle()
            listener, is_busy = self._listener, self._closed or self._sinks
            if is_busy or listener is None or not (listener.lends and self._lender.can_lend):
                return None
            loan = Loan(listener, key, look, self._decode, self._is_ended, self._forgotten)
            self._lender.loan = loan
        try:
            found = loan.wait(deadline)
            self.troubles.note(loan.trouble)
        except Exception as exc:
            # What is no driver's is the caller's: the time limit of a task, a signal's handler.
            if isinstance(exc, UpshotError) or self.troubles.explain(exc) is None:
                raise
            self.troubles.note(exc, quietly=self._closed)
            found = None
        finally:
            self._take_back(loan)
        return loan.void() if found is None else found

    def unwatch(self, keys: Iterable[str], sink: Sink[T]) -> None:
        """Stop delivering `keys` to `sink`; keys that have ended already are ignored.

        It takes no lock and wakes nobody: an abandoned generator gets here whenever the garbage
        collector finds it, also in a thread that holds the lock. The hub notices within a second.
        """
        left = tuple(key for key in keys if key in self._sinks)
        if left:
            self._left.append((left, sink))

    def forget(self, keys: Iterable[str]) -> None:
        """End waits for `keys`, just deleted: their news may have come too early, or never come."""
        gone = dict.fromkeys(keys)
        self._finish({key: ResultForgottenError("forgotten during the wait") for key in gone})
        with self._lock:
            self._lender.forget(gone)
            self._forgotten.add(gone)
            self._nudge()

    def close(self) -> None:
        """End every wait with ServiceClosedError, stop the thread and close the listener."""
        with self._lock:
            self._closed = True
            thread = self._thread
            self._nudge()
        if thread is not None and thread.is_alive() and thread is not threading.current_thread():
            thread.join(_FAREWELL)

    def stats(self) -> dict[str, int]:
        """Return the number of awaited `keys`, of `waiters`, and of `threads` and `listeners`."""
        with self._lock:
            self._settle()
            alone = int(self._lender.loan is not None)
            return {
                "keys": len(self._sinks) + alone,
                "waiters": sum(len(sinks) for sinks in self._sinks.values()) + alone,
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
                self.troubles.note(None)
                pause = _FIRST_PAUSE
            except Exception as exc:  # the drain thread must outlive whatever a driver raises
                self.troubles.note(exc, quietly=self._closed)
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
            while self._lender.loan or not (
                self._closed or self._sinks or (self._gone and self._listener)
            ):
                if not self._lender.rest():
                    self._listener = None  # closed by its borrower, should that be there yet
            return not self._closed

    def _take_back(self, loan: Loan[T]) -> None:
        with self._lock:
            is_ours = self._lender.take_back(loan)
            if is_ours and not loan.is_intact:
                self._listener = None
            if self._closed or self._sinks:
                self._changed.notify_all()
        if not (is_ours and loan.is_intact):
            loan.listener.close()

    def _cycle(self) -> None:
        """Watch until the hub closes, nobody waits, or the service fails."""
        with self.troubles.asking():
            listener = self._listener or self._listen()
        with self._lock:
            fresh = listener is not self._listener
            self._listener = listener
            if fresh:  # a gap: whatever happened meanwhile was not heard
                self._new = dict.fromkeys(self._sinks)
                self._gone.clear()
        next_look = hushed = 0.0
        while True:
            with self._lock:
                self._settle()
                new, self._new = list(self._new), {}
                gone: list[str] = []
                if not self._sinks or hushed <= clock.monotonic():
                    gone, self._gone = [key for key in self._gone if key not in self._sinks], {}
                    hushed = clock.monotonic() + _HUSHING
                if self._closed or not (self._sinks or gone):
                    return
            self._follow(listener, gone, new)
            began = clock.monotonic()
            if began >= next_look:
                with self._lock:
                    self._dismiss()
                    new = list(self._sinks)
            if new and self._look(new) is None and began >= next_look:
                self.troubles.note(None)
            cost = clock.monotonic() - began
            if began >= next_look or listener is None:
                next_look = began + cost + self._pause(cost, listener)
            if self._hear(listener, min(next_look, hushed) if self._gone else next_look):
                next_look = min(next_look, began + cost + cost)  # it may have rested that long

    def _follow(self, listener: Listener | None, gone: list[str], new: list[str]) -> None:
        """Have a listener hear of what is awaited, and of nothing else."""
        with self.troubles.asking():
            if listener is not None and gone:
                listener.unsubscribe(gone)
            if listener is not None and new:
                listener.subscribe(new)

    def _pause(self, cost: float, listener: Listener | None) -> float:
        """Return the seconds between two looks at everything: at most half the time it reads."""
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
            if self._new or self._closed or not self._sinks:
                timeout = 0.0
        hints = listener.wait(timeout)
        self._heed([hint for hint in hints if hint.key in self._sinks])
        return any(hint.key is None for hint in hints)

    def _heed(self, hints: Sequence[Hint]) -> None:
        """Deliver what hints of awaited keys brought along, and read the others once."""
        ended: dict[str, T | UpshotError] = {}
        unread: list[str] = []
        erased: set[str] = set()
        times = self._forgotten.times
        for key, body in hints:
            if key is None:
                continue
            found = self._decode(key, body) if body else None
            # Anybody may send a hint, and it may be of an id's last use: what is stored decides.
            if found is None or isinstance(found, UpshotError) or key in self._forgotten:
                unread.append(key)
            elif self._is_ended(found):
                ended[key] = found
            if body == b"":
                erased.add(key)
        self._finish(ended, times)
        if unread:
            self._look(unread, erased)

    def _look(self, keys: Sequence[str], erased: Container[str] = ()) -> UpshotError | None:
        """Read `keys` once and deliver those that ended; return why some could not be read.

        Of `erased` a hint said that the record was deleted, which may be news of an id's last use.
        """
        keys = list(dict.fromkeys(keys))
        ended: dict[str, T | UpshotError] = {}
        trouble: UpshotError | None = None
        times = self._forgotten.times
        with self.troubles.asking():
            seen = self._load(keys)
        for key, found in zip(keys, seen, strict=True):
            if isinstance(found, ServiceUnavailableError):
                trouble = found
            elif found is None and key in erased:
                ended[key] = ResultForgottenError("forgotten during the wait")
            elif found is not None and (isinstance(found, UpshotError) or self._is_ended(found)):
                ended[key] = found
        self._finish(ended, times)
        if trouble is None:
            self.troubles.answered()
        else:
            self.troubles.note(trouble)
        return trouble

    def _finish(self, ended: Mapping[str, T | UpshotError], times: int | None = None) -> None:
        """Take ended keys off the books and deliver them, one batch per sink.

        A key that was forgotten since so many `times` may be in use again: it is looked at anew.
        """
        batches: dict[int, tuple[Sink[T], list[tuple[str, T | UpshotError]]]] = {}
        with self._lock:
            self._settle()
            again = [] if times is None else self._forgotten.since(times, ended)
            self._new.update(dict.fromkeys(key for key in again if key in self._sinks))
            for key, found in ended.items():
                if key in again:
                    continue
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
        if self._closed or self._sinks:
            self._lender.call_in()
        if self._listener is not None:
            self._listener.interrupt()

    def _disconnect(self) -> None:
        with self._lock:
            listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
