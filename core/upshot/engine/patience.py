"""Waiting for a result store that is away, however long that takes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final, TypeVar, final

from upshot.clock import Deadline
from upshot.errors import ServiceClosedError, ServiceError, ServiceUnavailableError
from upshot.retrying import jitter
from upshot.seldom import Seldom

__all__ = ["Patience"]

logger = logging.getLogger("upshot.task")

T = TypeVar("T")

_FIRST_PAUSE: Final = 0.1  # seconds between two attempts; doubles up to the longest, which is
_LONGEST_PAUSE: Final = 2.0  # short enough that a store which is back is used within 5 seconds
_BETWEEN_WARNINGS: Final = 30.0  # seconds


@final
class Patience:
    """Repeats what one task needs of its result store until it succeeds, and says so seldom.

    A refusal that looks permanent (rights, quota) is waited for too: somebody can grant the right,
    and what a task has returned cannot be had again. What is waited for is no retry of a call:
    each attempt is a whole call, with its own timeout and retries.

    Args:
        label: the task, as it stands in a log.
    """

    def __init__(self, label: str) -> None:
        self._label = label
        self._complaint = Seldom(_BETWEEN_WARNINGS)

    def repeat(
        self,
        operation: Callable[[], T],
        what: str,
        *,
        stopping: threading.Event,
        limit: float | None = None,
    ) -> T:
        """Return what `operation` returns as soon as it does.

        Args:
            operation: one call of the result store.
            what: what has not happened while it raises: "its result is not stored yet".
            stopping: once set, nothing is tried again.
            limit: seconds after which nothing is tried again; None for no limit.

        Raises:
            ServiceError: the last one.
        """
        pause, deadline = _FIRST_PAUSE, Deadline(limit)
        while True:
            try:
                return operation()
            except ServiceError as exc:
                if isinstance(exc, ServiceClosedError) or stopping.is_set() or deadline.expired:
                    raise
                if self._complaint.is_due():
                    # What may end by itself is a warning; the rest is somebody's to mend.
                    for_now = isinstance(exc, ServiceUnavailableError)
                    level = logging.WARNING if for_now else logging.ERROR
                    logger.log(level, "task %s: %s, and tried again: %s", self._label, what, exc)
                stopping.wait(deadline.left(jitter(pause / 2, pause)))
                pause = min(pause * 2, _LONGEST_PAUSE)
