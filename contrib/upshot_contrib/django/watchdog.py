"""Ends what a server does not answer: drivers wait for as long as it takes.

One thread looks after all running calls. When the time of one is over, it shuts the call's socket
down, and the driver finds that the connection is lost. So this works with every driver that tells
its socket's number.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Generator
from typing import Final, final

from upshot import clock
from upshot.clock import Deadline

__all__ = ["Watch", "Watchdog"]


_NEVER: Final = float("inf")


@final
class Watch:
    """One call on one socket.

    Args:
        descriptor: the socket's number; None if there is none.
        until: when its time is over, on the monotonic clock.

    Attributes:
        bit: whether the socket was shut down.
    """

    def __init__(self, descriptor: int | None, until: float) -> None:
        self.until = until
        self.bit = False
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def end(self) -> None:
        """Do nothing from now on: the call has returned, and its number may soon be another's."""
        with self._lock:
            self._descriptor = None

    def bite(self) -> None:
        """Shut the socket down, unless the call has returned."""
        with self._lock:
            if self._descriptor is None:
                return
            self.bit = True
            # By a second number for the socket, which is closed without closing the first.
            with (
                contextlib.suppress(OSError),
                socket.socket(fileno=os.dup(self._descriptor)) as found,
            ):
                found.shutdown(socket.SHUT_RDWR)


@final
class Watchdog:
    """Looks after calls; its thread is there from the first one until `close`."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._watches: set[Watch] = set()
        self._next_look = _NEVER
        self._thread: threading.Thread | None = None
        self._closed = False

    @contextlib.contextmanager
    def over(self, descriptor: int | None, deadline: Deadline) -> Generator[Watch]:
        """Let a block that uses a socket take no longer than `deadline`."""
        left = deadline.left()
        watch = Watch(descriptor, _NEVER if left is None else clock.monotonic() + left)
        if descriptor is None:
            yield watch
            return
        try:
            self._add(watch)
            yield watch
        finally:
            watch.end()
            with self._changed:
                self._watches.discard(watch)

    def close(self) -> None:
        """End the thread; idempotent. No call is running."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _add(self, watch: Watch) -> None:
        with self._changed:
            self._watches.add(watch)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._look, name="upshot-django-watchdog", daemon=True
                )
                self._thread.start()
            elif watch.until < self._next_look:
                self._changed.notify_all()

    def _look(self) -> None:
        while (late := self._late()) is not None:
            for watch in late:
                watch.bite()

    def _late(self) -> list[Watch] | None:
        """Return the calls whose time is over, once there are any; None when it is to end."""
        with self._changed:
            while not self._closed:
                now = clock.monotonic()
                late = [watch for watch in self._watches if watch.until <= now]
                if late:
                    self._watches.difference_update(late)
                    return late
                # What returns in time wakes nobody: then there is one look too many.
                self._next_look = min((watch.until for watch in self._watches), default=_NEVER)
                self._changed.wait(None if self._next_look == _NEVER else self._next_look - now)
            return None
