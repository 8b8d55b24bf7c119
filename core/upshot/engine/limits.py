"""Raises SoftTimeLimitExceededError inside a running function.

In a process's main thread a timer signal does it, which also ends a `time.sleep` or a blocking
read. In any other thread the interpreter delivers it between two bytecodes, so a call into C has
to return first. A call to a service, such as a progress report, comes to its end in either case.

The exception comes wherever the thread happens to be, and it is to leave the function. In a
finaliser, or a handler of `logging`, it would be dropped: there the limit waits until that is over.
Where it is dropped all the same, as by a weak reference's callback, it strikes once more.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import weakref
from abc import abstractmethod
from contextlib import AbstractContextManager
from types import FrameType, TracebackType
from typing import Any, Final, final

from upshot import forking
from upshot.errors import SoftTimeLimitExceededError
from upshot.interrupts import shield

__all__ = ["soft_limit"]

# Classes, and no generators: a limit may strike between a context manager and its block. What
# is left of a generator then is run when it is collected, which may be during the next limit.

_PAUSE: Final = 0.001  # seconds until the next try, where the exception would be dropped
_SWITCH: Final = 0.00005  # seconds; a hundredth of the interpreter's own switch interval


def soft_limit(seconds: float) -> AbstractContextManager[None]:
    """Raise SoftTimeLimitExceededError in the `with` block once `seconds` have passed."""
    _watch_what_is_dropped()
    main = threading.current_thread() is threading.main_thread()
    return _BySignal(seconds) if main else _ByInterpreter(seconds)


class _Limit(AbstractContextManager[None]):
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._here = shield()
        self._has_struck = False

    @abstractmethod
    def strike_again(self) -> None:
        """Raise the exception once more, if it was this limit's that was dropped.

        Called by the thread, in a callback.
        """


@final
class _BySignal(_Limit):
    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self._before = signal.getsignal(signal.SIGALRM)
        self._is_over = False

    def __enter__(self) -> None:
        _own.limit = self
        try:
            self._set(self._seconds)
        except BaseException:  # no `__exit__` will be called
            self._is_over, _own.limit = True, None
            raise

    def __exit__(self, *_: object) -> None:
        self._is_over = True  # first: a signal that is on its way may not set the timer any more
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)
        _own.limit = None

    def strike_again(self) -> None:
        if self._has_struck and not self._is_over:
            self._set(_PAUSE)

    def _set(self, seconds: float) -> None:
        signal.signal(signal.SIGALRM, self._expired)
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def _expired(self, number: int, frame: FrameType | None) -> None:
        if self._is_over:
            return
        if _drops(frame):
            self._set(_PAUSE)
            return
        signal.signal(signal.SIGALRM, self._before)  # it may strike where nothing else does so
        self._has_struck = True
        self._here.interrupt_here(_error(self._seconds))


@final
class _ByInterpreter(_Limit):
    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self._thread = threading.get_ident()
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._dropped = threading.Event()
        self._timer = threading.Thread(target=self._run, name="upshot-limit", daemon=True)

    def __enter__(self) -> None:
        left: _ByInterpreter | None = getattr(_own, "limit", None)
        if left is not None:  # it struck just when its block was left, and waits for more
            left._end()
        _own.limit = self
        try:
            with self._here:  # a thread that is struck while it starts another leaves it half known
                self._timer.start()
        except BaseException:  # as above
            self._end()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            with self._here, self._lock:
                self._is_over.set()
        except SoftTimeLimitExceededError as exc:  # it strikes just now
            error = exc
            raise
        finally:
            self._end()
            if isinstance(error, SoftTimeLimitExceededError):
                error.args = error.args or _error(self._seconds).args
            del error  # what was raised here would refer to itself by this frame

    def strike_again(self) -> None:
        if self._has_struck:
            self._dropped.set()

    def _end(self) -> None:
        self._is_over.set()
        self._dropped.set()
        _own.limit = None

    def _run(self) -> None:
        pause = self._seconds
        while not self._is_over.wait(pause):
            with _switching:
                while not self._strikes():
                    if self._is_over.wait(_PAUSE):
                        return
            self._dropped.wait()
            pause = _PAUSE

    def _strikes(self) -> bool:
        """Raise the exception, unless it would be dropped; tell whether that is done."""
        error = _error(self._seconds)
        with self._lock:  # once the block is left, nothing may be raised in the thread any more
            if self._is_over.is_set():
                return True
            self._dropped.clear()
            if _drops(_frame_of(self._thread)):  # at once, or it will run something else
                return False
            self._has_struck = True
            self._here.interrupt(error)
            return True


def _error(seconds: float) -> SoftTimeLimitExceededError:
    return SoftTimeLimitExceededError(f"the task ran longer than {seconds} seconds")


@final
class _Switching(AbstractContextManager[None]):
    """Has threads take turns more often, while a limit waits for what another one runs.

    Who waits for the interpreter gets it mostly where the other lets go of it. Where that is the
    writing of a log, a limit would see nothing else, and wait for ever.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._usual = 0.0
        forking.register(self)

    def __enter__(self) -> None:
        with self._lock:
            if not self._depth:
                self._usual = sys.getswitchinterval()
                sys.setswitchinterval(_SWITCH)
            self._depth += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._depth -= 1
            if not self._depth:
                sys.setswitchinterval(self._usual)

    def after_fork(self) -> None:
        """Nobody waits in a child."""
        self._lock = threading.Lock()
        if self._depth:
            self._depth = 0
            sys.setswitchinterval(self._usual)


_switching: Final = _Switching()

# -- where an exception does not leave the function ------------------------------------------------

_own: Any = threading.local()  # `limit`: that of the block which the thread is in, or None


def _frame_of(thread: int) -> FrameType | None:
    """Return what a thread runs now; whoever keeps it keeps all that it refers to."""
    return sys._current_frames().get(thread)  # pyright: ignore[reportPrivateUsage] - documented


def _drops(frame: FrameType | None) -> bool:
    """Tell whether what is raised in `frame` is likely to be dropped on its way."""
    while frame is not None:
        code = frame.f_code
        if code in _DROPPING or code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False


@final
class _Hook:
    """Hears from the interpreter what it drops, and leaves to the hook before what is no limit."""

    def __init__(self) -> None:
        self._before = sys.unraisablehook

    def __call__(self, dropped: sys.UnraisableHookArgs, /) -> None:
        limit: _Limit | None = getattr(_own, "limit", None)
        try:
            is_limit = limit is not None and dropped.exc_type is SoftTimeLimitExceededError
            if not is_limit:
                self._before(dropped)
        except SoftTimeLimitExceededError:  # it strikes just here, whose errors no hook hears of
            is_limit = True
        if limit is not None and is_limit:
            limit.strike_again()


# What is raised under a handler is printed, by default, and what a hook raises in any case.
_DROPPING: Final = {
    logging.Handler.handle.__code__,
    weakref.finalize.__call__.__code__,  # pyright: ignore[reportUnknownMemberType]
    _Hook.__call__.__code__,
}


def _watch_what_is_dropped() -> None:
    if not isinstance(sys.unraisablehook, _Hook):
        sys.unraisablehook = _Hook()


# -- around a fork: other modules' hooks hold locks, and would keep them for ever ------------------

# Hooks that are registered late run first before a fork and last after it: `logging` has its own.


def _before_fork() -> None:
    here = shield()
    here.__enter__()
    _own.forking = here


def _after_fork() -> None:
    here, _own.forking = getattr(_own, "forking", None), None
    if here is not None:
        here.__exit__()  # what this raises is dropped, and strikes once more


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
