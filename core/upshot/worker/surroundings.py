"""What a task may change of its process, and has to leave as it found it.

Tasks run one after the other in a process. What one of them changes by chance (a library that takes
over signals, a closed stderr, another working folder) must not reach the next, nor keep the worker
from hearing that it is to stop.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import signal
import stat
import sys
import threading
from typing import Any, Final, TextIO, final

__all__ = ["DamagedError", "Surroundings"]

_FIRST_SPARE: Final = 200  # descriptors of ours that are seldom used lie above those of a task
_STANDARD: Final = ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY))


class DamagedError(Exception):
    """A task closed a descriptor of the process: what is written next may go anywhere."""


@final
class Surroundings:
    """The state of this process as tasks are to find it.

    Restored in the main thread: signal handlers, signal mask, wake-up descriptor, alarm, working
    folder, umask. In any thread: the three standard descriptors and streams, the recursion limit if
    it was lowered, and whether garbage is collected. Everything else a task changes stays changed:
    its environment variables, its locale and its logging may be meant to.

    Args:
        kept: a descriptor that nobody but this process closes; if it is gone, others may be too.
        signals: those whose handlers are restored.
    """

    def __init__(self, kept: int, signals: tuple[signal.Signals, ...]) -> None:
        self._kept, self._kept_as = kept, _identity(kept)
        self._handlers = {number: signal.getsignal(number) for number in signals}
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self._wakeup = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        self._spares = {number: _spare(number, mode) for number, mode in _STANDARD}
        self._streams = (sys.stdout, sys.stderr)
        self._folder = os.open(".", os.O_RDONLY)
        self._folder_as = _identity(self._folder)
        self._umask = os.umask(0)
        os.umask(self._umask)
        self._recursion = sys.getrecursionlimit()
        self._collects = gc.isenabled()

    def restore(self) -> None:
        """Put everything back.

        Raises:
            DamagedError: descriptors of this process were closed, so nothing of it can be trusted.
        """
        if sys.getrecursionlimit() < self._recursion:
            sys.setrecursionlimit(self._recursion)
        if self._collects and not gc.isenabled():
            gc.enable()
        if _identity(self._kept) != self._kept_as:
            raise DamagedError("a task closed descriptors that are not its own")
        try:
            self._restore_streams()
            if threading.current_thread() is threading.main_thread():
                self._restore_signals()
                os.umask(self._umask)
                if _identity(".") != self._folder_as:
                    os.fchdir(self._folder)
        except OSError as exc:
            raise DamagedError(f"a task closed descriptors that are not its own: {exc}") from exc

    def _restore_streams(self) -> None:
        for number, spare in self._spares.items():
            now = _identity(number)
            if now is None:
                os.dup2(spare, number)
            elif now != _identity(spare) and stat.S_ISSOCK(os.fstat(number).st_mode):
                raise DamagedError("a connection was opened in the place of a standard stream")
        sys.stdout = _opened(self._streams[0], 1)
        sys.stderr = _opened(self._streams[1], 2)

    def _restore_signals(self) -> None:
        # The mask last: what was held back until now is to find our handlers, and an alarm that
        # was set for the task is to find nothing.
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        for number, handler in self._handlers.items():
            if signal.getsignal(number) is not handler:
                signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)


def _identity(file: int | str) -> tuple[int, int] | None:
    """Return what tells an open file from others; None if it is not open, or has gone."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _spare(number: int, mode: int) -> int:
    """Return a second descriptor for what a standard one leads to, or for nowhere if it is closed.

    It lies where programs that close "all" small numbers seldom come to.
    """
    for first in (_FIRST_SPARE, 3):
        with contextlib.suppress(OSError):
            return fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, first)
    return os.open(os.devnull, mode)


def _opened(stream: Any, number: int) -> TextIO:
    """Return a stream that can be written to: the one that was there, or else a new one."""
    if stream is not None and not stream.closed:
        return stream  # type: ignore[no-any-return]  # whatever was there at the start
    return os.fdopen(number, "w", errors="backslashreplace", closefd=False)
