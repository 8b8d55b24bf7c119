"""What is asked of every broker, by sending two messages through a queue that nobody serves."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Final, final

from upshot import clock
from upshot.broker import (
    Broker,
    Delivery,
    Leaving,
    QueuedMessage,
    QueueStatus,
    Settlement,
)
from upshot.clock import Deadline
from upshot.diagnosis.results import round_trip
from upshot.errors import UpshotError
from upshot.finding import Finding, Level
from upshot.service import OpenService

__all__ = ["MessagesTrial"]

_BODY: Final = b"upshot doctor: no task; remove it"
_LEASE: Final = 2.0  # seconds: what is left of an interrupted trial can be removed soon
_WAIT: Final = 2.0  # seconds in which a message has to come that is there
_AHEAD: Final = 0.4  # seconds from now at which the second message is due
_EARLY: Final = 0.05  # seconds too soon, from which on clocks are to blame
_LATE: Final = 1.0  # seconds too late, likewise; a broker that polls is late by 0.2


@final
class MessagesTrial:
    """Publishes, fetches, renews and settles messages in a queue of its own.

    Args:
        service: the broker; in the namespace that is used in earnest, as rights may end there.
        trial: names the queue, the worker and the messages.
    """

    def __init__(self, service: OpenService[Broker], trial: str) -> None:
        self._service = service
        self._trial = trial
        self._held: list[Delivery] = []
        self._was_published = False

    def steps(self) -> Iterator[tuple[str, Callable[[], Finding]]]:
        """Yield what is tried, as what could not be done if it fails; each needs the one before."""
        yield "it cannot be asked what is in a queue", self._survey
        yield "a message cannot be published", self._publish
        yield "a message cannot be fetched", self._fetch
        yield "a lease cannot be renewed, or a message settled", self._settle
        yield "a message with an eta cannot be sent", self._delay

    def tidy(self) -> None:
        """Remove the queue and what may still be in it; raises nothing.

        What was on its way to us when Ctrl-C came can be removed only when its lease is over.
        """
        with contextlib.suppress(UpshotError):
            if not self._was_published:
                return
            self._end()
            end = Deadline(_LEASE + _EARLY)
            self._purge()
            while self._status().leased and not end.expired:
                clock.sleep(_EARLY)
                self._purge()
        with contextlib.suppress(UpshotError):
            self._beat([], [])
        with contextlib.suppress(UpshotError):
            self._service.call(self._leave)

    def _survey(self) -> Finding:
        return round_trip(self._status, "a look at a queue")

    def _publish(self) -> Finding:
        self._send("1")
        return Finding(Level.OK, "messages can be published")

    def _fetch(self) -> Finding:
        began = clock.monotonic()
        found = self._look(_WAIT)
        if [delivery.body for delivery in found] != [_BODY]:
            return Finding(
                Level.PROBLEM,
                "a message that was just published did not come out of its queue",
                change="see whether the queue is read where it is written",
            )
        taken = clock.monotonic() - began
        return Finding(Level.OK, f"messages can be fetched, in {taken * 1000:.3g} ms")

    def _settle(self) -> Finding:
        held = list(self._held)
        renewed = self._beat([self._trial], held)
        if not held or not all(renewed) or not all(self._end()):
            return Finding(
                Level.PROBLEM,
                "a lease that has just begun is over",
                "tasks would be delivered again while they run",
                "let NTP keep the clocks of this machine and of the service",
            )
        return Finding(Level.OK, "leases can be renewed, and messages settled")

    def _delay(self) -> Finding:
        due = clock.now() + _AHEAD
        self._send("2", eta=due)
        end = Deadline(_AHEAD + _WAIT)
        while not self._held and not end.expired:
            self._look(end.left() or 0.0)
        late = clock.now() - due
        if not self._held:
            said = f"is still not there {_WAIT:g} seconds after its moment"
        elif late < -_EARLY:
            said = f"came {-late:.2g} seconds before its moment"
        elif late > _LATE:
            said = f"came {late:.2g} seconds after its moment"
        else:
            self._end()
            return Finding(Level.OK, "messages with an eta come at their moment")
        self._end()
        return Finding(
            Level.WARNING,
            f"a message with an eta {said}",
            "`eta` and `countdown` count by the sender's clock first, then by the service's",
            "let NTP keep the clocks of this machine and of the service",
        )

    # -- one call each ----------------------------------------------------------------------------

    def _send(self, number: str, *, eta: float | None = None) -> None:
        message = QueuedMessage(
            message_id=f"{self._trial}-{number}", queue=self._trial, body=_BODY, eta=eta
        )
        self._was_published = True
        self._service.call(lambda broker, seconds: broker.publish([message], [], seconds))

    def _look(self, wait: float) -> Sequence[Delivery]:
        found = self._service.call(
            lambda broker, _: broker.fetch(
                [self._trial], limit=1, wait=wait, lease=_LEASE, worker=self._trial
            )
        )
        self._held += found
        return found

    def _beat(self, queues: Sequence[str], held: Sequence[Delivery]) -> Sequence[bool]:
        return self._service.call(
            lambda broker, seconds: broker.beat(
                self._trial, queues, held, lease=_LEASE, timeout=seconds
            )
        )

    def _end(self) -> Sequence[bool]:
        """Settle what is held."""
        settlements = [Settlement(delivery=delivery) for delivery in self._held]
        ended = self._service.call(lambda broker, seconds: broker.settle(settlements, seconds))
        self._held.clear()
        return ended

    def _purge(self) -> None:
        self._service.call(lambda broker, seconds: broker.purge([self._trial], seconds))

    def _status(self) -> QueueStatus:
        found = self._service.call(lambda broker, seconds: broker.survey([self._trial], seconds))
        return found[self._trial]

    def _leave(self, broker: Broker, seconds: float) -> None:
        if isinstance(broker, Leaving):
            broker.leave([self._trial], seconds)
