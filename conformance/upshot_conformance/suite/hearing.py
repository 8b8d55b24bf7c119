"""Backends through which tests hear, look and act at chosen moments of a wait."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from upshot.backend import Backend, StoredRecord
from upshot.listening import Hint, Listener
from upshot_conformance.layer import Layer, ListenerLayer

__all__ = ["ByHintsOnly", "Echoing", "Interposing", "Sluggish", "echoes"]


class ByHintsOnly(Layer):
    """Shows the hub nothing that no hint spoke of; make one with `ByHintsOnly.above(backend)`.

    The hub looks at everything every second, so a lost wake-up is late and not lost. Behind this
    layer its looks find nothing, but the one after each subscription, and those after a hint. A
    wake-up that is lost is lost for good then, however fast or slow the machine is. Where the
    service cannot push, everything passes as it is: there the hub has nothing but its looks.
    """

    def __init__(self, below: Backend) -> None:
        super().__init__(below)
        self._hub: int | None = None
        self._hears = False
        self._told: set[str] = set()

    @property
    def in_hub(self) -> bool:
        """Tell whether the hub's thread is calling."""
        return threading.get_ident() == self._hub

    def listen(self, timeout: float) -> Listener | None:
        below = super().listen(timeout)
        self._told = set()
        self._hub = threading.get_ident()
        self._hears = below is not None
        return below and _Telling(below, self._told)

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        bodies = super().load(keys, timeout)
        if not (self._hears and self.in_hub):
            return bodies
        shown = [
            body if key in self._told else None for key, body in zip(keys, bodies, strict=True)
        ]
        if not self.capabilities.visibility:  # else a hint may be ahead of what it speaks of
            self._told.difference_update(keys)
        return shown


class _Telling(ListenerLayer):
    """Notes in `told` which keys the hub has a reason to look at."""

    def __init__(self, below: Listener, told: set[str]) -> None:
        super().__init__(below)
        self._told = told
        self._subscribed: set[str] = set()

    def subscribe(self, keys: Sequence[str]) -> None:
        super().subscribe(keys)
        self._subscribed.update(keys)
        self._told.update(keys)

    def unsubscribe(self, keys: Sequence[str]) -> None:
        super().unsubscribe(keys)
        self._subscribed.difference_update(keys)

    def wait(self, timeout: float) -> Sequence[Hint]:
        hints = super().wait(timeout)
        for hint in hints:
            self._told.update(self._subscribed if hint.key is None else {hint.key})
        return hints


class Interposing(ByHintsOnly):
    """Does something once at a moment of a wait, in the thread that came so far.

    Attributes:
        moment: `"first look"`, of the thread that waits; or `"listen"`, `"before subscribing"`,
            `"subscribe"`, `"second look"`, of the hub. As soon as it is over, the deed is done.
            None: never.
        act: what is done.
    """

    moment: str | None = None
    act: Callable[[], object]

    def passed(self, moment: str) -> None:
        """Act if this is the moment."""
        if self.moment == moment:
            self.moment = None
            self.act()

    def listen(self, timeout: float) -> Listener | None:
        below = super().listen(timeout)
        self.passed("listen")
        return below and _Interposing(below, self)

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        bodies = super().load(keys, timeout)
        self.passed("second look" if self.in_hub else "first look")
        return bodies


class _Interposing(ListenerLayer):
    def __init__(self, below: Listener, above: Interposing) -> None:
        super().__init__(below)
        self._above = above

    def subscribe(self, keys: Sequence[str]) -> None:
        self._above.passed("before subscribing")
        super().subscribe(keys)
        self._above.passed("subscribe")


class Echoing(Layer):
    """Hears each notification three times, and others that nobody sent; see `echoes`."""

    def listen(self, timeout: float) -> Listener | None:
        below = super().listen(timeout)
        return below and _Echoing(below)


class _Echoing(ListenerLayer):
    def __init__(self, below: Listener) -> None:
        super().__init__(below)
        self._keys: set[str] = set()
        self._last: list[Hint] = []

    def subscribe(self, keys: Sequence[str]) -> None:
        super().subscribe(keys)
        self._keys.update(keys)

    def unsubscribe(self, keys: Sequence[str]) -> None:
        super().unsubscribe(keys)
        self._keys.difference_update(keys)

    def wait(self, timeout: float) -> Sequence[Hint]:
        # An early return is allowed, and lets hints come that nothing in the service caused.
        heard = super().wait(min(timeout, 0.02))
        before, self._last = self._last, [*heard]
        return [*before, *echoes(self._keys), *heard, *heard]


def echoes(keys: set[str]) -> list[Hint]:
    """Return hints that nobody with a result sent: foreign, without reason, and unreadable."""
    foreign = [Hint("nobody's"), Hint("nobody's", b"\x00"), Hint("", b""), Hint(None)]
    unreadable = (b"\x00\xff garbage", b"{}", b"null", b"\xc1" * 64)
    return foreign + [Hint(key) for key in keys] + [Hint(k, b) for k in keys for b in unreadable]


class Sluggish(Layer):
    """Takes its time for every hook, and notes which threads called one.

    Attributes:
        pause: seconds that each hook takes longer.
        callers: the idents of the threads that called a hook.
    """

    pause: float = 0.0
    callers: set[int]

    def __init__(self, below: Backend) -> None:
        super().__init__(below)
        self.callers = set()

    def dawdle(self) -> None:
        """Note the caller, and let it wait."""
        self.callers.add(threading.get_ident())
        threading.Event().wait(self.pause)

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        self.dawdle()
        return super().store(records, timeout)

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        self.dawdle()
        return super().load(keys, timeout)

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        self.dawdle()
        super().delete(keys, timeout)

    def listen(self, timeout: float) -> Listener | None:
        self.dawdle()
        below = super().listen(timeout)
        return below and _Sluggish(below, self)


class _Sluggish(ListenerLayer):
    def __init__(self, below: Listener, above: Sluggish) -> None:
        super().__init__(below)
        self._above = above

    def subscribe(self, keys: Sequence[str]) -> None:
        self._above.dawdle()
        super().subscribe(keys)

    def unsubscribe(self, keys: Sequence[str]) -> None:
        self._above.dawdle()
        super().unsubscribe(keys)
