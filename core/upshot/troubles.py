"""What is known of a service that cannot be read, for whoever waits in vain."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import final

from upshot import clock
from upshot.errors import ServiceUnavailableError, UpshotError
from upshot.retrying import MIN_LOOK

__all__ = ["Troubles"]

logger = logging.getLogger(__name__)


@final
class Troubles:
    """The last trouble of one service, and since when it has been silent.

    Args:
        explain: says which upshot error a driver's exception means; None for a defect.
    """

    def __init__(self, explain: Callable[[Exception], UpshotError | None]) -> None:
        self.explain = explain
        self._last: UpshotError | None = None
        self._asked_at: float | None = None
        self._answered_at = -math.inf

    @property
    def current(self) -> UpshotError | None:
        """Why the service cannot be read now, None if it can."""
        asked_at = self._asked_at
        silence = 0.0 if asked_at is None else clock.monotonic() - asked_at
        if self._last is None and silence >= MIN_LOOK:
            return ServiceUnavailableError(f"no answer for {silence:.1f} seconds")
        return self._last

    def since(self, moment: float, known: UpshotError | None) -> UpshotError | None:
        """Return why the service cannot be read now, None if it can.

        Args:
            moment: of the monotonic clock.
            known: what the caller's own look met just before; it holds until an answer that is
                younger than `moment`.
        """
        return self.current or (known if self._answered_at < moment else None)

    def answered(self) -> None:
        """Note that the service has answered, perhaps not for everything."""
        self._answered_at = clock.monotonic()

    @contextmanager
    def asking(self) -> Generator[None]:
        """Note since when the service has not answered what is asked inside the block."""
        self._asked_at = clock.monotonic()
        try:
            yield
        finally:
            self._asked_at = None

    def note(self, exc: Exception | None, *, quietly: bool = False) -> None:
        """Remember what was raised, and say so when it begins.

        Args:
            exc: what was raised; None once the service was read.
            quietly: say nothing of what a service does.
        """
        error = None if exc is None else self.explain(exc)
        if exc is None:
            self._last = None
        elif error is not None:
            if self._last is None and not quietly:
                logger.warning("waiting goes on while the backend cannot be read: %s", error)
            self._last = error
        else:
            logger.error("a result backend failed during a wait", exc_info=exc)
