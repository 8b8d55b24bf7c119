"""Broken backends: who is woken, when, and by what."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from upshot.backend import Backend, Capabilities, StoredRecord
from upshot.listening import Hint, Listener
from upshot.record import Record
from upshot.states import State

from .kinds import ChangesListener, Mutant, PassingListener


class ClaimsRarePolls(Mutant):
    kills = "WT-1"

    @classmethod
    def declared(cls, below: Capabilities) -> Capabilities:
        return replace(below, poll_interval=5.0)


class ClaimsPushAndPolls(ChangesListener):
    """Finds changes itself, by looking from time to time."""

    kills = "WT-1"

    def heard(self, below: Listener) -> Listener:
        return _Deaf(below)


class _Deaf(PassingListener):
    def wait(self, timeout: float) -> Sequence[Hint]:
        super().wait(timeout)
        return []


class TellsOfSuccessOnly(ChangesListener):
    kills = "WT-1"

    def heard(self, below: Listener) -> Listener:
        return _Filtering(below, _is_success)


def _is_success(hint: Hint) -> bool:
    return not hint.body or Record.decode(hint.body).state == State.SUCCESS


class _Filtering(PassingListener):
    def __init__(self, below: Listener, passes: Callable[[Hint], bool]) -> None:
        super().__init__(below)
        self._passes = passes

    def wait(self, timeout: float) -> Sequence[Hint]:
        return [hint for hint in super().wait(timeout) if self._passes(hint)]


class WakesTheFirstOfSeveral(ChangesListener):
    """Two processes listen: one takes the notification, as from a queue, and the other has none."""

    kills = "WT-3"

    def heard(self, below: Listener) -> Listener:
        return _Filtering(below, _once)


_TAKEN: set[str] = set()


def _once(hint: Hint) -> bool:
    if hint.key is None or hint.key not in _TAKEN:
        _TAKEN.add(hint.key or "")
        return True
    return False


class UnsubscribesEverybody(ChangesListener):
    kills = "WT-3"

    def heard(self, below: Listener) -> Listener:
        return _UnsubscribesEverybody(below)


class _UnsubscribesEverybody(PassingListener):
    def __init__(self, below: Listener) -> None:
        super().__init__(below)
        self._keys: set[str] = set()

    def subscribe(self, keys: Sequence[str]) -> None:
        super().subscribe(keys)
        self._keys.update(keys)

    def unsubscribe(self, keys: Sequence[str]) -> None:
        super().unsubscribe(list(self._keys))


class SubscribesLater(ChangesListener):
    """Leaves the subscription to the next wait, when the look is over."""

    kills = "WT-4"

    def heard(self, below: Listener) -> Listener:
        return _SubscribesLater(below)


class _SubscribesLater(PassingListener):
    def __init__(self, below: Listener) -> None:
        super().__init__(below)
        self._later: list[str] = []

    def subscribe(self, keys: Sequence[str]) -> None:
        self._later += keys

    def wait(self, timeout: float) -> Sequence[Hint]:
        if self._later:
            super().subscribe(self._later)
            self._later.clear()
        return super().wait(timeout)


class SubscriptionsReplaceEachOther(ChangesListener):
    kills = "WT-4"

    def heard(self, below: Listener) -> Listener:
        return _Replacing(below)


class _Replacing(PassingListener):
    def __init__(self, below: Listener) -> None:
        super().__init__(below)
        self._keys: list[str] = []

    def subscribe(self, keys: Sequence[str]) -> None:
        super().unsubscribe(self._keys)
        super().subscribe(keys)
        self._keys = list(keys)


class SubscribingForgetsWhatWasHeard(ChangesListener):
    """Reads the confirmation of a subscription, and drops what comes before it."""

    kills = "WT-4"

    def heard(self, below: Listener) -> Listener:
        return _Flushing(below)


class _Flushing(PassingListener):
    def subscribe(self, keys: Sequence[str]) -> None:
        super().subscribe(keys)
        super().wait(0.01)


class HearsOneOfSeveral(ChangesListener):
    """Takes the last of the notifications that have come."""

    kills = "WT-5"

    def heard(self, below: Listener) -> Listener:
        return _HearsOne(below)


class _HearsOne(PassingListener):
    def wait(self, timeout: float) -> Sequence[Hint]:
        return super().wait(timeout)[-1:]


class ListensOncePerKey(Mutant):
    """Opens a connection for every awaited key."""

    kills = "WT-5"
    push_only = "without push nobody listens"

    def listen(self, timeout: float) -> Listener | None:
        below = super().listen(timeout)
        return below and _OncePerKey(below, lambda: Mutant.listen(self, timeout))


class _OncePerKey(PassingListener):
    def __init__(self, below: Listener, another: Callable[[], Listener | None]) -> None:
        super().__init__(below)
        self._another = another
        self._open: dict[str, Listener] = {}

    def subscribe(self, keys: Sequence[str]) -> None:
        super().subscribe(keys)
        for key in keys[:100]:  # a process has no descriptors for more
            opened = self._another()
            if opened is not None:
                opened.subscribe([key])
                self._open[key] = opened

    def unsubscribe(self, keys: Sequence[str]) -> None:
        super().unsubscribe(keys)
        for key in keys:
            if key in self._open:
                self._open.pop(key).close()

    def close(self) -> None:
        super().close()
        for opened in self._open.values():
            opened.close()


class UnsubscribingDeletes(Mutant):
    """Keeps each result in a queue that is deleted with its last consumer."""

    kills = "WT-6"
    push_only = "without push nobody subscribes"

    def listen(self, timeout: float) -> Listener | None:
        below = super().listen(timeout)
        return below and _Deleting(below, self.below, timeout)


class _Deleting(PassingListener):
    def __init__(self, below: Listener, backend: Backend, timeout: float) -> None:
        super().__init__(below)
        self._backend = backend
        self._timeout = timeout

    def unsubscribe(self, keys: Sequence[str]) -> None:
        super().unsubscribe(keys)
        self._backend.delete(keys, self._timeout)


class RemembersThatThereWasNothing(Mutant):
    kills = "WT-6"

    def __init__(self, below: Backend) -> None:
        super().__init__(below)
        self._nothing: set[str] = set()

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        bodies = self.bodies(keys, timeout)
        shown = [None if k in self._nothing else b for k, b in zip(keys, bodies, strict=True)]
        self._nothing.update(k for k, b in zip(keys, bodies, strict=True) if b is None)
        return shown


class RetriesAreFailures(Mutant):
    """Stores what will be tried again as what is over."""

    kills = "WT-7"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        return super().store(list(map(_over, records)), timeout)


def _over(stored: StoredRecord) -> StoredRecord:
    record = Record.decode(stored.body)
    if record.state != State.RETRY:
        return stored
    return stored._replace(body=record._replace(state=State.REVOKED).encode())


class ClosesWhenTheWaitIsOver(ChangesListener):
    """Cannot be interrupted: it notices a closed client when it next hears something."""

    kills = "WT-8"

    def heard(self, below: Listener) -> Listener:
        return _Uninterrupted(below)


class _Uninterrupted(PassingListener):
    def interrupt(self) -> None:
        """Never does."""


class KeepsTheLastSubscription(ChangesListener):
    """Unsubscribes when it next has something to subscribe to."""

    kills = "WT-8"

    def heard(self, below: Listener) -> Listener:
        return _UnsubscribesLater(below)


class _UnsubscribesLater(PassingListener):
    def __init__(self, below: Listener) -> None:
        super().__init__(below)
        self._gone: list[str] = []

    def subscribe(self, keys: Sequence[str]) -> None:
        super().unsubscribe([key for key in self._gone if key not in keys])
        self._gone.clear()
        super().subscribe(keys)

    def unsubscribe(self, keys: Sequence[str]) -> None:
        self._gone += keys


class InterruptsAndWaits(ChangesListener):
    """Waits, where it is told that there is work, until the work is begun."""

    kills = "WT-9"

    def heard(self, below: Listener) -> Listener:
        return _InterruptsAndWaits(below)


class _InterruptsAndWaits(PassingListener):
    def interrupt(self) -> None:
        super().interrupt()
        time.sleep(0.01)


class LosesWhatItHeardWhenInterrupted(ChangesListener):
    """Returns nothing from a wait that was interrupted, whatever was heard in it."""

    kills = "WT-10"

    def heard(self, below: Listener) -> Listener:
        return _LosesWhatItHeard(below)


class _LosesWhatItHeard(PassingListener):
    def __init__(self, below: Listener) -> None:
        super().__init__(below)
        self._interrupted = threading.Event()

    def interrupt(self) -> None:
        self._interrupted.set()
        super().interrupt()

    def wait(self, timeout: float) -> Sequence[Hint]:
        heard = super().wait(timeout)
        if self._interrupted.is_set():
            self._interrupted.clear()
            return []
        return heard
