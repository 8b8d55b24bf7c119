"""Hearing from the kernel that a file was written to: inotify, where there is one.

Python has no module for it, so the two calls that it takes are made in the C library.
"""

from __future__ import annotations

import contextlib
import os
import select
from typing import Final, final

__all__ = ["WriteNotices"]

_MODIFY: Final = 0x2  # IN_MODIFY of <sys/inotify.h>; the flags for opening are those of `os.open`
_ALL: Final = 2**16  # bytes of notices that are read at once; only that there are any matters


@final
class WriteNotices:
    """Hears of every write to one file by whichever process of this machine.

    One thread waits at a time; any may interrupt. What it has open is closed when the last
    reference is gone: so no thread can meet a descriptor that means something else by now.

    Args:
        path: the file, which exists.

    Raises:
        OSError: this system has no inotify, or this user no more of it (128, by default).
    """

    def __init__(self, path: str) -> None:
        self._notices = self._interrupts = -1
        self._notices = _watched(path)
        self._interrupts = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(self._notices, select.POLLIN)
        self._poll.register(self._interrupts, select.POLLIN)

    def __del__(self) -> None:
        for descriptor in (self._notices, self._interrupts):
            if descriptor >= 0:
                os.close(descriptor)

    def wait(self, seconds: float) -> bool:
        """Block for at most so many seconds, or until an interrupt; True if there was a write.

        One that nobody was told of counts, whenever it was.
        """
        ready = [descriptor for descriptor, _ in self._poll.poll(seconds * 1000)]
        for descriptor in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(descriptor, _ALL)
        return self._notices in ready

    def interrupt(self) -> None:
        """End the running `wait`, or else the next one."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(self._interrupts, 1)


def _watched(path: str) -> int:
    """Return an inotify descriptor that becomes readable with each write to a file."""
    try:
        import ctypes  # only who waits; and not every Python has it

        library = ctypes.CDLL(None, use_errno=True)
        descriptor: int = library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    except (ImportError, AttributeError) as exc:
        raise OSError("no inotify on this system") from exc
    if descriptor >= 0:
        name = ctypes.c_char_p(os.fsencode(path))
        if library.inotify_add_watch(descriptor, name, ctypes.c_uint32(_MODIFY)) >= 0:
            return descriptor
        os.close(descriptor)
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), path)
