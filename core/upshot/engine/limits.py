"""Raises SoftTimeLimitExceededError inside a running function.

In a process's main thread a timer signal does it, which also ends a `time.sleep` or a blocking
read. In any other thread the interpreter delivers it between two bytecodes, so a call into C has
to return first. A call to a service, such as a progress report, comes to its end in either case.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Generator
from types import FrameType

from upshot.errors import SoftTimeLimitExceededError
from upshot.interrupts import shield

__all__ = ["soft_limit"]


@contextlib.contextmanager
def soft_limit(seconds: float) -> Generator[None]:
    """Raise SoftTimeLimitExceededError in the `with` block once `seconds` have passed."""
    main = threading.current_thread() is threading.main_thread()
    with _by_signal(seconds) if main else _by_interpreter(seconds):
        yield


@contextlib.contextmanager
def _by_signal(seconds: float) -> Generator[None]:
    here = shield()

    def expired(number: int, frame: FrameType | None) -> None:
        here.interrupt_here(_error(seconds))

    before = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _by_interpreter(seconds: float) -> Generator[None]:
    here = shield()
    lock = threading.Lock()
    armed = True

    def expired() -> None:
        with lock:  # once the block is left, nothing may be raised in the thread any more
            if armed:
                here.interrupt(_error(seconds))

    timer = threading.Timer(seconds, expired)
    timer.daemon = True
    timer.start()
    try:
        yield
    except SoftTimeLimitExceededError as exc:
        exc.args = exc.args or _error(seconds).args
        raise
    finally:
        with lock:
            armed = False
        timer.cancel()


def _error(seconds: float) -> SoftTimeLimitExceededError:
    return SoftTimeLimitExceededError(f"the task ran longer than {seconds} seconds")
