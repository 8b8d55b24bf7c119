"""The interface that a broker implements: seven hooks and a declaration.

A broker keeps messages until a worker has settled them. Fetching a message leases it: nobody else
gets it until the lease runs out, and a worker that is alive renews its leases in time. So a
message is delivered at least once, and each delivery is counted.

The rules for hooks are those of `upshot.backend`.
"""

from __future__ import annotations

import abc
import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from upshot.backend import Backend, StoredRecord
from upshot.retrying import DriverErrors
from upshot.url import Url

__all__ = [
    "Action",
    "Broker",
    "BrokerCapabilities",
    "Delivery",
    "Exchanging",
    "Leaving",
    "QueueStatus",
    "QueuedMessage",
    "Settlement",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerCapabilities:
    """What a broker can do. No field has a default: an author decides each one.

    Attributes:
        shared: another process that opens the same URL sees the messages.
        persistent: messages survive a restart of the service in its usual configuration.
        deduplicates: publishing a message again while it is queued or leased leaves one. False:
            there may be two, and the record of their task lets one of them run.
        ranks_queues: `fetch` compares the priorities of messages in different queues. False: it
            serves the queues fairly, and priorities count within each.
        counts_leased: `survey` can tell how many messages are at workers.
        longest_lease: seconds after which the service takes a message back although its lease is
            renewed, in its usual configuration; None for never. Tasks must be shorter.
        max_message_bytes: longest encoded message that `publish` takes.
    """

    shared: bool
    persistent: bool
    deduplicates: bool
    ranks_queues: bool
    counts_leased: bool
    longest_lease: float | None
    max_message_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedMessage:
    """An encoded message on its way to a broker.

    Attributes:
        message_id: unique per message; publishing it twice leaves one message, where the broker
            `deduplicates`.
        queue: the queue's name, without the namespace.
        body: the encoded message; opaque.
        priority: 0 to 9, larger first; within one priority, first in, first out.
        eta: not delivered before this moment, seconds since the epoch; None for at once.
    """

    message_id: str
    queue: str
    body: bytes
    priority: int = 0
    eta: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A message leased to this worker.

    Attributes:
        message_id: as published.
        queue: where it was fetched from.
        body: as published, or as the last REPLACE put it.
        deliveries: 1 for the first delivery; each further one, after a lease ran out, adds 1.
        token: unique per delivery; settling or renewing with an outdated token does nothing.
    """

    message_id: str
    queue: str
    body: bytes
    deliveries: int
    token: str


class Action(enum.Enum):
    """What becomes of a delivered message."""

    ACK = "ack"
    """It is done: remove it."""
    REPLACE = "replace"
    """Put `Settlement.message` in its place, in one step; its deliveries start again.

    Whatever fails, one of the two is there. A broker that does not deduplicate may leave both."""
    RELEASE = "release"
    """Give it back unstarted: others get it at once and this delivery is not counted."""
    BURY = "bury"
    """It can never be run: move it to the dead letters, with `Settlement.reason`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """The end of one delivery.

    Attributes:
        delivery: what is settled.
        action: what becomes of it.
        message: for REPLACE, what takes its place; otherwise None.
        reason: for BURY, why, for whoever looks at the dead letters; otherwise "".
    """

    delivery: Delivery
    action: Action = Action.ACK
    message: QueuedMessage | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStatus:
    """What a broker knows about one queue at one moment.

    Attributes:
        ready: messages that could be delivered now.
        delayed: messages whose `eta` has not come.
        leased: messages at a worker; None if the service cannot tell.
        dead: messages that were buried.
        workers: names of the workers that gave a sign of life within the last lease; None if
            the service cannot tell.
        next_eta: the earliest `eta` of those delayed, in seconds since the epoch; None if none is,
            or if the broker does not tell.
    """

    ready: int
    delayed: int
    leased: int | None
    dead: int
    workers: tuple[str, ...] | None
    next_eta: float | None = None


class Broker(abc.ABC):
    """Carries messages from callers to workers on one service.

    Class attributes to define: `capabilities`, `driver_errors`; see `upshot.backend.Backend`.
    """

    capabilities: BrokerCapabilities
    driver_errors: ClassVar[DriverErrors] = DriverErrors()

    @abc.abstractmethod
    def __init__(self, url: Url, namespace: str) -> None:
        """Read the URL, and nothing more. Every server object's name begins with `namespace`.

        Raises:
            UrlError: the URL lacks something or has an unknown `upshot_…` parameter.
        """

    def joins(self, backend: Backend) -> bool:
        """Tell whether `publish` can store records in `backend` in its own round trip.

        True only where broker and backend are one service at one URL.
        """
        return False

    @abc.abstractmethod
    def publish(
        self, messages: Sequence[QueuedMessage], records: Sequence[StoredRecord], timeout: float
    ) -> None:
        """Keep the messages, and store `records` under the backend's guard, all or nothing.

        `records` is empty unless `joins` said True. When this returns, the messages are as safe
        as the service can make them. Repeating the call after a lost answer is harmless; where
        the broker does not deduplicate, that takes records of the tasks.
        """

    @abc.abstractmethod
    def fetch(
        self, queues: Sequence[str], *, limit: int, wait: float, lease: float, worker: str
    ) -> Sequence[Delivery]:
        """Lease up to `limit` messages to `worker`, each in one atomic step.

        Takes what is due, larger priority first, and what others let their lease run out on;
        `queues` are served in their order when priorities are equal, or fairly. A broker that
        does not rank queues serves them fairly, whatever the priorities in them.

        Args:
            queues: names without the namespace.
            limit: 1 or more.
            wait: seconds to wait if nothing is due; 0 looks once. Returns [] when it is over.
            lease: seconds until the messages go to somebody else unless renewed by `beat`.
            worker: the name to show in `survey`.
        """

    @abc.abstractmethod
    def settle(self, settlements: Sequence[Settlement], timeout: float) -> Sequence[bool]:
        """End deliveries; tell for each whether it was still this worker's to settle.

        Idempotent per token as far as its effect goes: repeating it changes nothing more.
        """

    @abc.abstractmethod
    def beat(
        self,
        worker: str,
        queues: Sequence[str],
        deliveries: Sequence[Delivery],
        *,
        lease: float,
        timeout: float,
    ) -> Sequence[bool]:
        """Give a sign of life: renew the leases for `lease` seconds from now.

        Tells for each delivery whether it is still this worker's. `worker` counts as serving
        `queues` for the next `lease` seconds; an empty `queues` signs it off at once.
        """

    @abc.abstractmethod
    def survey(self, queues: Sequence[str], timeout: float) -> Mapping[str, QueueStatus]:
        """Count what is in each of `queues`; an unknown queue is empty, and is not created."""

    @abc.abstractmethod
    def purge(self, queues: Sequence[str], timeout: float) -> int:
        """Remove every message of `queues` that is not leased, dead letters included.

        Returns how many were removed. Records are not touched.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Give back sockets, threads and descriptors; idempotent, raises nothing."""


# What some services can do besides. A broker that has the method is found by it; the others need
# nothing of the kind.


@runtime_checkable
class Exchanging(Protocol):
    """A broker that ends a delivery and leases the next message in one round trip."""

    def exchange(
        self,
        settlement: Settlement,
        record: StoredRecord | None,
        queues: Sequence[str],
        *,
        lease: float,
        worker: str,
        timeout: float,
    ) -> tuple[bool, bool, Sequence[Delivery]]:
        """Store `record` under the backend's guard and settle, all or nothing; then fetch one.

        Args:
            settlement: the delivery that has ended.
            record: its outcome; None unless `joins` said True and it is still to be stored.
            queues, lease, worker: as for `fetch`, which is not waited for.
            timeout: seconds for all.

        Returns:
            Whether the record applied, False if there was none; whether the delivery was still
            this worker's to settle; and the next message, if there was one.
        """
        ...


@runtime_checkable
class Leaving(Protocol):
    """A broker whose queues stay on the service when they are empty and nobody uses them."""

    def leave(self, queues: Sequence[str], timeout: float) -> None:
        """Remove the queues themselves, with all that is in them; for queues of a trial."""
        ...
