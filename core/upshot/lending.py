"""A push connection in the hands of the one thread that waits.

A thread that reads the connection itself wakes sooner than one that is told by another, and two
threads less have to run for each result. That is worth having where a task is called and its result
awaited, one after the other. As soon as a second waiter comes, the hub's thread serves both.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar, final

from upshot import clock
from upshot.errors import ResultForgottenError, UpshotError
from upshot.listening import Hint, Listener

__all__ = ["Forgotten", "Lender", "Loan", "Look"]

T = TypeVar("T")

Look = Callable[[], tuple[T | UpshotError | None, UpshotError | None]]
"""Reads the awaited record; tells what ends the wait, if anything does, and why it cannot be read,
if it cannot. It raises nothing that a service does."""

_CALLED_IN: Final = 2.0  # seconds that a thread has to give back a listener that others need
_REMEMBERED: Final = 4096  # forgotten keys: more than any service's news lags behind
_SAFETY_LOOK: Final = 1.0  # seconds between looks that no hint asked for


@final
class Forgotten:
    """The keys whose records this process has deleted lately: there may be old news of them.

    Attributes:
        times: how often records were deleted.
    """

    def __init__(self) -> None:
        self._keys: OrderedDict[str, int] = OrderedDict()
        self.times = 0

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def since(self, times: int, keys: Iterable[str]) -> list[str]:
        """Return those of the keys that were deleted since `times` was what is given."""
        return [key for key in keys if self._keys.get(key, 0) > times] if times < self.times else []

    def add(self, keys: Iterable[str]) -> None:
        """Note that records were deleted; the last ones are known, however many there were."""
        self.times += 1
        for key in keys:
            self._keys[key] = self.times
            self._keys.move_to_end(key)
        while len(self._keys) > _REMEMBERED:
            self._keys.popitem(last=False)


@final
@dataclass(eq=False)
class Loan(Generic[T]):
    """One wait for one key. Two attributes are set by other threads, who then interrupt the
    listener.

    Attributes:
        listener: heard by this wait alone.
        key: what is awaited.
        look: reads it.
        decode: turns a pushed body into what `look` would have found.
        is_ended: tells whether a record ends the wait.
        forgotten: keys of which there may be old news.
        give_back_by: set when somebody else needs the listener: the wait goes on elsewhere. Until
            when, on the monotonic clock; None while nobody does.
        is_void: set when the record was deleted by this process.
        trouble: why the record could not be read, if so.
        is_intact: whether the listener can be used again.
        borrower: the thread that waits.
    """

    listener: Listener
    key: str
    look: Look[T]
    decode: Callable[[str, bytes], T | UpshotError]
    is_ended: Callable[[T], bool]
    forgotten: Container[str]
    give_back_by: float | None = None
    is_void: bool = False
    trouble: UpshotError | None = None
    is_intact: bool = False
    borrower: int = field(default_factory=threading.get_ident)

    def wait(self, deadline: clock.Deadline) -> T | UpshotError | None:
        """Return what ended the wait; None if it has to go on elsewhere, or has no more time.

        If it raises, the listener is in no known state.
        """
        self.listener.attend(self.key, deadline.left())
        found = self._looked()
        next_look = clock.monotonic() + _SAFETY_LOOK
        while found is None and self.trouble is None:
            if self.give_back_by is not None or self.is_void or deadline.expired:
                break
            rest = max(0.0, next_look - clock.monotonic())
            hints = self.listener.wait(deadline.left(rest) or 0.0)
            found = self._heard(hints)
            if found is None and clock.monotonic() >= next_look:
                found = self._looked()
                next_look = clock.monotonic() + _SAFETY_LOOK
        if self.trouble is None:  # otherwise the listener's side may be away, too
            self.listener.unsubscribe([self.key])
            self.is_intact = True
        return found

    def void(self) -> ResultForgottenError | None:
        """Return what ends a wait that found nothing, if its record was deleted by this process.

        To be asked once the loan has ended, whatever has ended it: no later wait would hear of it.
        """
        return ResultForgottenError("forgotten during the wait") if self.is_void else None

    def _heard(self, hints: Sequence[Hint]) -> T | UpshotError | None:
        """Return what ends the wait, if one of the hints does or leads to it."""
        for key, body in hints:
            if key != self.key:
                continue
            told = self.decode(self.key, body) if body else None
            # Anybody may send a hint, and it may be an old one: then what is stored decides.
            if told is None or isinstance(told, UpshotError) or self.key in self.forgotten:
                found = self._looked()
                if found is None and body == b"" and self.trouble is None:
                    found = ResultForgottenError("forgotten during the wait")
            else:
                found = told if self.is_ended(told) else None
            if found is not None:
                return found
        return None

    def _looked(self) -> T | UpshotError | None:
        found, self.trouble = self.look()
        return found


@final
class Lender(Generic[T]):
    """Whether a hub's listener is in other hands; every method needs the hub's lock.

    Args:
        changed: what the hub's thread sleeps on.

    Attributes:
        loan: to whom it is lent; None if to nobody.
    """

    def __init__(self, changed: threading.Condition) -> None:
        self.loan: Loan[T] | None = None
        self._changed = changed
        self._is_resting = False

    @property
    def can_lend(self) -> bool:
        """Whether the hub's thread sleeps because nobody waits; needs no lock to be a hint."""
        return self._is_resting and self.loan is None

    def rest(self) -> bool:
        """Sleep until something has changed, in the hub's thread.

        Returns False if the listener is lost: its borrower does not give it back, and others wait.
        A thread may be ended by an exception wherever it is.
        """
        loan = self.loan
        self._is_resting = True
        try:
            if loan is None or loan.give_back_by is None:
                self._changed.wait()
                return True
            left = loan.give_back_by - clock.monotonic()
            if left > 0:  # whoever else comes meanwhile wakes this, too, and changes nothing
                self._changed.wait(left)
                return True
            self.loan = None
            return False
        finally:
            self._is_resting = False

    def take_back(self, loan: Loan[T]) -> bool:
        """Note that a loan has ended; False if it was given up for lost before."""
        is_ours = self.loan is loan
        if is_ours:
            self.loan = None
        return is_ours

    def call_in(self) -> None:
        """Ask for the listener, which is interrupted afterwards."""
        if self.loan is not None and self.loan.give_back_by is None:
            # Who has borrowed it may need it again before that wait goes on: in a signal's handler.
            is_nested = self.loan.borrower == threading.get_ident()
            self.loan.give_back_by = clock.monotonic() + (0.0 if is_nested else _CALLED_IN)

    def forget(self, keys: Container[str]) -> None:
        """Note that records were deleted by this process; the listener is interrupted then."""
        if self.loan is not None and self.loan.key in keys:
            self.loan.is_void = True
