"""Records of passing interest, held back for a moment: most are out of date before it is over."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, final

from upshot import clock
from upshot.backend import StoredRecord
from upshot_backends.amqp.io_thread import IoThread

__all__ = ["HOLD", "Announcements"]

logger = logging.getLogger(__name__)

HOLD: Final = 0.02
"""Seconds that a record is held back: no person sees the difference, and a task that has ended by
then costs one message less at three places."""

_SENDING: Final = 5.0  # seconds until records that the server does not take are given up


@final
class Announcements:
    """Holds the latest record of each key, and sends what nothing has replaced.

    Args:
        thread: looks at what is held, as often as `HOLD`, while there is any.
        send: sends records, on the thread.
    """

    def __init__(
        self,
        thread: IoThread,
        send: Callable[[Sequence[StoredRecord]], Coroutine[Any, Any, object]],
    ) -> None:
        self._thread = thread
        self._send = send
        self._held: dict[str, tuple[StoredRecord, float]] = {}
        self._is_watched = False
        self._is_used = False
        self._sending: asyncio.Task[None] | None = None

    def hold(self, record: StoredRecord) -> None:
        """Send a record in a moment; on any thread."""
        self._held[record.key] = record, clock.monotonic() + HOLD
        self._is_used = True
        if not self._is_watched:
            self._is_watched = True
            self._thread.soon(self._watch)

    def drop(self, key: str) -> None:
        """Do not send what is held under a key: something later is sent; on any thread."""
        self._held.pop(key, None)

    # -- on the thread ------------------------------------------------------------------------

    def _watch(self) -> None:
        """Look now and again, and no longer when nothing has come for one round."""
        if self._sending is None:  # otherwise the server is slow, and they can wait for each other
            self._send_due()
        self._is_watched = self._is_used or bool(self._held)
        self._is_used = False
        if self._is_watched:
            asyncio.get_running_loop().call_later(HOLD, self._watch)
        elif self._held:  # another thread has come in between, and found it watched
            self._is_watched = True
            self._thread.soon(self._watch)

    def _send_due(self) -> None:
        now = clock.monotonic()
        due = [record for record, moment in list(self._held.values()) if moment <= now]
        for record in due:
            self._held.pop(record.key, None)
        if due:
            self._sending = asyncio.create_task(self._try(due))

    async def _try(self, records: Sequence[StoredRecord]) -> None:
        try:
            async with asyncio.timeout(_SENDING):
                await self._send(records)
        except Exception as exc:  # the outcomes of these tasks are sent with more patience
            logger.debug("%d records of running tasks are not sent: %s", len(records), exc)
        finally:
            self._sending = None
