"""Messages in this process's memory.

Service: none. What it cannot do: outlive the process, or reach a worker in another one.
Layout: one list of messages per URL and namespace, shared by all that open it in this process.
"""

from __future__ import annotations

import itertools
import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from upshot import clock, forking
from upshot.backend import StoredRecord
from upshot.broker import (
    Action,
    Broker,
    BrokerCapabilities,
    Delivery,
    QueuedMessage,
    QueueStatus,
    Settlement,
)
from upshot.url import Url
from upshot_backends.memory.results import NoOptions

__all__ = ["MemoryBroker"]


@dataclass(slots=True)
class _Entry:
    """One message and where it stands."""

    message: QueuedMessage
    order: int
    deliveries: int = 0
    token: str = ""
    leased_until: float | None = None  # on the monotonic clock
    reason: str | None = None  # why it was buried

    @property
    def rank(self) -> tuple[int, int]:
        return -self.message.priority, self.order

    def is_due(self) -> bool:
        if self.reason is not None:
            return False
        if self.leased_until is not None:
            return self.leased_until <= clock.monotonic()
        return self.message.eta is None or self.message.eta <= clock.now()

    def is_delayed(self) -> bool:
        waits = self.reason is None and self.leased_until is None
        return waits and (self.message.eta or 0.0) > clock.now()

    def due_in(self) -> float:
        """Seconds until it can be delivered, if nobody touches it."""
        if self.reason is not None:
            return float("inf")
        if self.leased_until is not None:
            return self.leased_until - clock.monotonic()
        return (self.message.eta or 0.0) - clock.now()


class _Room:
    """What every `MemoryBroker` of one URL and namespace shares."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.entries: dict[str, _Entry] = {}
        self.order = itertools.count()
        self.seen_until: dict[tuple[str, str], float] = {}
        forking.register(self)

    def after_fork(self) -> None:
        """Go on with a copy of the messages: another thread may have held the parent's lock."""
        self.changed = threading.Condition()

    def held(self, delivery: Delivery) -> _Entry | None:
        """Return the entry if `delivery` is still its current one."""
        entry = self.entries.get(delivery.message_id)
        return entry if entry and entry.leased_until and entry.token == delivery.token else None

    def beat(self, worker: str, queues: Sequence[str], lease: float) -> None:
        for key in [key for key in self.seen_until if key[1] == worker]:
            del self.seen_until[key]
        for queue in queues:
            self.seen_until[queue, worker] = clock.monotonic() + lease


_ROOMS: Final[dict[tuple[str, str], _Room]] = {}


class MemoryBroker(Broker):
    """`memory://`, or `memory://name` for queues of their own. There are no options."""

    capabilities = BrokerCapabilities(
        shared=False,
        persistent=False,
        deduplicates=True,
        ranks_queues=True,
        counts_leased=True,
        longest_lease=None,
        max_message_bytes=2**30,
    )

    def __init__(self, url: Url, namespace: str) -> None:
        url.read_options(NoOptions)
        self._room = _ROOMS.setdefault((url.driver_url(), namespace), _Room())

    def publish(
        self, messages: Sequence[QueuedMessage], records: Sequence[StoredRecord], timeout: float
    ) -> None:
        room = self._room
        with room.changed:
            for message in messages:
                room.entries.setdefault(message.message_id, _Entry(message, next(room.order)))
            room.changed.notify_all()

    def fetch(
        self, queues: Sequence[str], *, limit: int, wait: float, lease: float, worker: str
    ) -> Sequence[Delivery]:
        room, deadline = self._room, clock.Deadline(wait)
        with room.changed:
            room.beat(worker, queues, lease)
            while True:
                mine = [entry for entry in room.entries.values() if entry.message.queue in queues]
                due = sorted((entry for entry in mine if entry.is_due()), key=lambda e: e.rank)
                if due or deadline.expired:
                    return [self._lease(entry, lease) for entry in due[:limit]]
                soonest = min((entry.due_in() for entry in mine), default=float("inf"))
                room.changed.wait(deadline.left(max(0.0, soonest)))

    def _lease(self, entry: _Entry, lease: float) -> Delivery:
        entry.deliveries += 1
        entry.token = uuid.uuid4().hex
        entry.leased_until = clock.monotonic() + lease
        message = entry.message
        return Delivery(
            message_id=message.message_id,
            queue=message.queue,
            body=message.body,
            deliveries=entry.deliveries,
            token=entry.token,
        )

    def settle(self, settlements: Sequence[Settlement], timeout: float) -> Sequence[bool]:
        room = self._room
        with room.changed:
            answers = [self._settle(settlement) for settlement in settlements]
            room.changed.notify_all()
        return answers

    def _settle(self, settlement: Settlement) -> bool:
        room = self._room
        entry = room.held(settlement.delivery)
        if entry is None:
            return False
        entry.leased_until = None
        if settlement.action is Action.RELEASE:
            entry.deliveries -= 1
        elif settlement.action is Action.BURY:
            entry.reason = settlement.reason
        else:
            del room.entries[entry.message.message_id]
            message = settlement.message
            if message is not None:
                room.entries[message.message_id] = _Entry(message, next(room.order))
        return True

    def beat(
        self,
        worker: str,
        queues: Sequence[str],
        deliveries: Sequence[Delivery],
        *,
        lease: float,
        timeout: float,
    ) -> Sequence[bool]:
        room = self._room
        with room.changed:
            room.beat(worker, queues, lease)
            held = [room.held(delivery) for delivery in deliveries]
            for entry in held:
                if entry is not None:
                    entry.leased_until = clock.monotonic() + lease
        return [entry is not None for entry in held]

    def survey(self, queues: Sequence[str], timeout: float) -> Mapping[str, QueueStatus]:
        with self._room.changed:
            return {queue: self._status(queue) for queue in queues}

    def _status(self, queue: str) -> QueueStatus:
        room, now = self._room, clock.monotonic()
        mine = [entry for entry in room.entries.values() if entry.message.queue == queue]
        ready = sum(entry.is_due() for entry in mine)
        dead = sum(entry.reason is not None for entry in mine)
        leased = sum((entry.leased_until or 0.0) > now for entry in mine)
        delayed = [entry for entry in mine if entry.is_delayed()]
        seen = room.seen_until.items()
        return QueueStatus(
            ready=ready,
            delayed=len(delayed),
            leased=leased,
            dead=dead,
            workers=tuple(sorted(name for (at, name), till in seen if at == queue and till > now)),
            next_eta=min((entry.message.eta or 0.0 for entry in delayed), default=None),
        )

    def purge(self, queues: Sequence[str], timeout: float) -> int:
        room, now = self._room, clock.monotonic()
        with room.changed:
            gone = [
                message_id
                for message_id, entry in room.entries.items()
                if entry.message.queue in queues and (entry.leased_until or 0.0) <= now
            ]
            for message_id in gone:
                del room.entries[message_id]
        return len(gone)

    def close(self) -> None:
        """Nothing is open; the messages stay for others who opened the same URL."""
