"""Whether the threads of a consumer still come round: what tells a live process from a wedged one.

That a process is there says little. One that hangs in a driver, or has lost a thread, keeps its
place and does nothing; its supervisor can only see that it shows no signs of life any more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

from upshot import clock
from upshot.settings import Settings

__all__ = ["Pulse"]

_SLACK: Final = 10.0  # seconds: twice the longest pause after a fetch in vain


@final
class Pulse:
    """Gives signs of life while all goes on: three threads that each come round in their time.

    The watch looks twice a second; it gives the signs. Leases are renewed three times in a lease.
    Messages are fetched again and again, unless a task runs: it may take as long as its limits
    allow, and a thread that fetches for itself is busy with it. How long a broker is away does not
    matter: to have asked it in vain is a round, too.

    Args:
        settings: `worker_lease` and `operation_timeout` say how long a round may take.
        beat: called for each sign of life.
        consumes: called whenever the broker has answered a fetch, with a message or with none.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        beat: Callable[[], object] = lambda: None,
        consumes: Callable[[], object] = lambda: None,
    ) -> None:
        # Whoever does neither for a whole lease has lost what it had to others.
        self._patience = settings.worker_lease + 2 * settings.operation_timeout + _SLACK
        self._beat = beat
        self.consumes = consumes
        self._fetching = self._renewing = clock.monotonic()

    def fetching(self) -> None:
        """Note that the loop that fetches messages begins a round."""
        self._fetching = clock.monotonic()

    def renewing(self) -> None:
        """Note that the loop that renews leases begins a round."""
        self._renewing = clock.monotonic()

    def look(self, *, is_busy: bool) -> None:
        """Give a sign of life if there is life; the watch calls it in each of its rounds.

        Args:
            is_busy: a task runs.
        """
        now = clock.monotonic()
        if is_busy:
            self._fetching = now
        if now - min(self._fetching, self._renewing) <= self._patience:
            self._beat()
