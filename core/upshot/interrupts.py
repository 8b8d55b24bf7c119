"""Interrupting what a thread runs, but never inside a call to a service.

A time limit is an exception that comes wherever the thread happens to be. No driver is written for
that: it may leave a lock held, half an answer unread, or C code with a broken argument. So the call
comes to its end first, which its own deadline sees to, and the exception after it.
"""

from __future__ import annotations

import ctypes
import threading
from typing import Any, final

from upshot import forking

__all__ = ["Shield", "shield"]


@final
class Shield:
    """One thread's: a context manager in whose block nothing here raises; blocks may be nested."""

    __slots__ = ("__weakref__", "_depth", "_late", "_lock", "_thread")

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._lock = threading.Lock()
        self._depth = 0
        self._late: BaseException | None = None
        forking.register(self)

    def __enter__(self) -> None:
        depth = self._depth
        try:
            with self._lock:
                self._depth += 1
        except BaseException:  # it came just before
            self._depth = depth
            raise

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth:
                return
            late, self._late = self._late, None
        if late is not None:
            try:
                raise late
            finally:
                del late  # see `interrupt_here`

    def interrupt_here(self, error: BaseException) -> None:
        """Raise an error in the thread, which calls this: from a signal handler."""
        if self._depth:
            self._late = error
            return
        try:
            raise error
        finally:
            del error  # or it would refer to itself by this frame, and keep all that the task had

    def interrupt(self, error: BaseException) -> None:
        """Raise an error in the thread, of its own type and without arguments, from another one.

        The interpreter delivers it between two bytecodes; a call into C has to return first.
        """
        with self._lock:
            if self._depth:
                self._late = error
                return
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(self._thread), ctypes.py_object(type(error))
            )

    def after_fork(self) -> None:
        """Make a new lock: another thread may have held it. Time limits are the parent's."""
        self._lock = threading.Lock()
        self._late = None


_own: Any = threading.local()


def shield() -> Shield:
    """Return the shield of the calling thread."""
    found: Shield | None = getattr(_own, "shield", None)
    if found is None:
        found = _own.shield = Shield()
    return found
