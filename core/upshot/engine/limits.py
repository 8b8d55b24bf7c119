"""Raises SoftTimeLimitExceededError inside a running function.

In a process's main thread a timer signal does it, which also ends a `time.sleep` or a blocking
read. In any other thread the interpreter delivers it between two bytecodes, so a call into C has
to return first. A call to a service, such as a progress report, comes to its end in either case.
"""

from __future__ import annotations

import signal
import threading
from contextlib import AbstractContextManager
from types import FrameType, TracebackType
from typing import final

from upshot.errors import SoftTimeLimitExceededError
from upshot.interrupts import shield

__all__ = ["soft_limit"]

# Classes, and no generators: a limit may strike between a context manager and its block. What
# is left of a generator then is run when it is collected, which may be during the next limit.


def soft_limit(seconds: float) -> AbstractContextManager[None]:
    """Raise SoftTimeLimitExceededError in the `with` block once `seconds` have passed."""
    main = threading.current_thread() is threading.main_thread()
    return _BySignal(seconds) if main else _ByInterpreter(seconds)


@final
class _BySignal(AbstractContextManager[None]):
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._here = shield()
        self._before = signal.getsignal(signal.SIGALRM)

    def __enter__(self) -> None:
        signal.signal(signal.SIGALRM, self._expired)
        signal.setitimer(signal.ITIMER_REAL, self._seconds)

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)

    def _expired(self, number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGALRM, self._before)  # it may strike where nothing else does so
        self._here.interrupt_here(_error(self._seconds))


@final
class _ByInterpreter(AbstractContextManager[None]):
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._here = shield()
        self._lock = threading.Lock()
        self._armed = True
        self._timer = threading.Timer(seconds, self._expired)
        self._timer.daemon = True

    def __enter__(self) -> None:
        with self._here:  # a thread that is struck while it starts another leaves it half known
            self._timer.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            with self._here, self._lock:
                self._armed = False
                self._timer.cancel()
        except SoftTimeLimitExceededError as exc:  # it strikes just now
            error = exc
            raise
        finally:
            if isinstance(error, SoftTimeLimitExceededError):
                error.args = error.args or _error(self._seconds).args

    def _expired(self) -> None:
        with self._lock:  # once the block is left, nothing may be raised in the thread any more
            if self._armed:
                self._here.interrupt(_error(self._seconds))


def _error(seconds: float) -> SoftTimeLimitExceededError:
    return SoftTimeLimitExceededError(f"the task ran longer than {seconds} seconds")
