"""Trying on while a service is away: what a task has returned is not to be lost."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Generator
from contextvars import ContextVar
from typing import Final, TypeVar

from upshot import retrying
from upshot.clock import sleep
from upshot.errors import ServiceUnavailableError
from upshot.record import printable

__all__ = ["insisting", "is_insisting", "until_stored"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_FIRST_PAUSE: Final = 0.1  # seconds between two attempts
_LONGEST_PAUSE: Final = 10.0

_insisting: Final = ContextVar("upshot_contrib.celery.insisting", default=False)


@contextlib.contextmanager
def insisting() -> Generator[None]:
    """Have everything that this thread stores inside the block tried on with, whosever it is.

    For what a worker has Celery store that nobody would store again, as a body's failure.
    """
    token = _insisting.set(True)
    try:
        yield
    finally:
        _insisting.reset(token)


def is_insisting() -> bool:
    """Tell whether this is inside a block of `insisting`."""
    return _insisting.get()


def until_stored(operation: Callable[[], T], *, task_id: str, patient: bool) -> T:
    """Return what `operation` returns; call it again, if `patient`, until the service is there.

    Args:
        operation: stores something; to do so twice is harmless.
        task_id: whose it is, for the log.
        patient: False raises the first error.

    Raises:
        ServiceUnavailableError: the service is away, and nobody is patient.
    """
    pause = _FIRST_PAUSE
    while True:
        try:
            return operation()
        except ServiceUnavailableError as exc:
            if not patient:
                raise
            logger.warning("task %s waits until it can be stored: %s", printable(task_id), exc)
            sleep(retrying.jitter(pause / 2, pause))
            pause = min(2 * pause, _LONGEST_PAUSE)
