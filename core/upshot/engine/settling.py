"""Telling the broker, once, what becomes of a delivery."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final, final

from upshot.broker import Action, Delivery, Settlement
from upshot.engine.host import Host
from upshot.errors import ServiceError
from upshot.message import Message
from upshot.record import printable
from upshot.sending import queued

__all__ = ["Settling", "shown", "tell_broker"]

logger = logging.getLogger("upshot.task")

_LONGEST: Final = 500  # characters of what a sender chose, in a log line or a dead letter


@final
class Settling:
    """The end of one delivery: the first of several threads to ask for one decides.

    Args:
        host: the app's side.
        delivery: the leased message.
    """

    def __init__(self, host: Host, delivery: Delivery) -> None:
        self._host = host
        self._delivery = delivery
        self._begun = threading.Lock()
        self._told = threading.Event()

    @property
    def is_begun(self) -> bool:
        """Whether the broker has been told what becomes of the message, or is being told."""
        return self._begun.locked()

    def claim(
        self, action: Action, *, message: Message | None = None, reason: str = "", note: str = ""
    ) -> Settlement | None:
        """Return what the caller is to tell the broker; None if somebody else came first.

        Args:
            action: what becomes of the message.
            message: what takes its place.
            reason: why it is buried.
            note: what to log if the delivery is not settled yet.
        """
        # Encoded first: if that fails, the delivery is still to be settled.
        replacement = None if message is None else queued(message, self._host.sealing)
        if not self._begun.acquire(blocking=False):
            return None
        if note:
            logger.warning("%s", note)
        return Settlement(
            delivery=self._delivery,
            action=action,
            message=replacement,
            reason=shown(reason),
        )

    def settle(
        self,
        action: Action,
        *,
        message: Message | None = None,
        reason: str = "",
        note: str = "",
        tell: Callable[[Settlement], bool] | None = None,
    ) -> None:
        """Tell the broker, as in `claim`; one that cannot be reached is told by the lease.

        Args:
            action, message, reason, note: as for `claim`.
            tell: tells the broker, and whether the delivery was still this worker's; None for
                the plain way.
        """
        settlement = self.claim(action, message=message, reason=reason, note=note)
        if settlement is None:
            return
        try:
            ours = tell(settlement) if tell else tell_broker(self._host, settlement)
        except ServiceError as exc:
            self.told(str(exc))
        except BaseException:
            self._told.set()
            raise
        else:
            self.told("" if ours else "it is no longer this worker's")

    def unclaim(self) -> None:
        """Let whoever asks next decide: what was claimed was not done, as far as is known."""
        self._begun.release()

    def told(self, trouble: str) -> None:
        """Note that what was claimed was told, or why not; "" for no trouble."""
        self._told.set()
        if trouble:
            logger.warning(
                "a message of queue %r may come again, and its task's record decides: %s",
                self._delivery.queue,
                trouble,
            )

    def await_told(self, seconds: float) -> None:
        """Wait until a `settle` that is under way has come to its end."""
        if self.is_begun:
            self._told.wait(seconds)


def tell_broker(host: Host, settlement: Settlement) -> bool:
    """Tell the broker how one delivery ended; tell whether it was still this worker's.

    Raises:
        ServiceError: the broker could not be told.
    """
    (ours,) = host.broker.call(lambda broker, seconds: broker.settle([settlement], seconds))
    return ours


def shown(text: str) -> str:
    """Return text for a log line or a dead letter: a sender chose it, and how long it is."""
    safe = printable(text[:_LONGEST])
    return safe if len(text) <= _LONGEST else f"{safe}…"
