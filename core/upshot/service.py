"""An open service: made when first used, made anew after a fork, called with one retry layer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import ClassVar, Generic, Protocol, TypeVar

from upshot import clock, forking, retrying
from upshot.errors import ServiceClosedError
from upshot.interrupts import shield
from upshot.retrying import DriverErrors
from upshot.url import Url

__all__ = ["OpenService"]

T = TypeVar("T")


class _Closeable(Protocol):
    driver_errors: ClassVar[DriverErrors]

    def close(self) -> None: ...


S = TypeVar("S", bound=_Closeable)


class OpenService(Generic[S]):
    """Holds one broker or backend object for this process, usable from any thread.

    The object is made when it is first needed. After a fork the child abandons the parent's
    object, without closing it, and makes its own: two processes on one socket would read each
    other's answers.

    Args:
        make: makes the broker or backend; does no I/O.
        url: the service, for error messages.
        timeout: seconds that one call may take, its retries included.
    """

    def __init__(self, make: Callable[[], S], *, url: Url, timeout: float) -> None:
        self.url = url
        self.timeout = timeout
        self._make = make
        self._lock = threading.Lock()
        self._object: S | None = None
        self._closed = False
        self._stopping = threading.Event()
        forking.register(self)

    @property
    def current(self) -> S:
        """The object itself, made now if need be.

        Raises:
            ServiceClosedError: `close` was called.
        """
        opened = self._object
        if opened is not None:
            return opened
        with self._lock:
            if self._closed:
                raise ServiceClosedError(f"{self.url} was closed by this process")
            if self._object is None:
                self._object = self._made()
            return self._object

    def _made(self) -> S:
        try:
            return self._make()
        except Exception as exc:  # the constructor hands the URL to the driver
            retrying.hide_secrets(exc, self.url)
            raise

    def call(
        self, operation: Callable[[S, float], T], *, deadline: clock.Deadline | None = None
    ) -> T:
        """Run `operation(object, seconds)` with retries and translated errors.

        No time limit of a task interrupts it.

        Raises:
            ServiceUnavailableError: still failing after `timeout` seconds or at the deadline.
            ServiceRejectedError: the service refused for good.
            ServiceClosedError: `close` was called, before or meanwhile.
        """
        try:
            with shield():
                opened = self.current
                return retrying.call(
                    partial(operation, opened),
                    errors=opened.driver_errors,
                    url=self.url,
                    deadline=deadline,
                    limit=self.timeout,
                    stopping=self._stopping,
                )
        except Exception as exc:
            retrying.hide_secrets(exc, self.url)
            if self._closed and not isinstance(exc, ServiceClosedError):
                raise ServiceClosedError(f"{self.url} was closed by this process") from exc
            raise

    def stop(self) -> None:
        """Let every call that runs end with its next error, and try no call again; idempotent.

        For whoever has threads to end before `close`: a service that is down holds them no longer.
        """
        self._stopping.set()

    def close(self) -> None:
        """Close the object, if it was ever made; idempotent. It is not made again."""
        self.stop()
        with self._lock:
            self._closed = True
            opened, self._object = self._object, None
        if opened is not None:
            opened.close()

    def after_fork(self) -> None:
        """Abandon the parent's object; the next use makes one for this process."""
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        forking.abandon(self._object)
        self._object = None
