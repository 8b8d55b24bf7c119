"""The rows of `messages`, `dead_letters` and `workers`, see `schema`; what is the same everywhere.

A lease is a moment on the wall clock of the service: a step of that clock by more than a lease's
length delivers messages again, or late.
"""

from __future__ import annotations

import abc
import uuid
from collections.abc import Iterator, Sequence
from typing import ClassVar, Final

from upshot.broker import Action, Delivery, QueuedMessage, QueueStatus, Settlement
from upshot_backends.sql.connection import Cursor, Database
from upshot_backends.sql.records import readable, text
from upshot_backends.sql.schema import READY
from upshot_backends.sql.statements import MessageStatements

__all__ = ["PROMOTED", "Messages", "MessagesInSteps", "due_at", "parts"]

_ROWS: Final = 1000  # messages in one statement

PROMOTED: Final = 1000
"""How many messages one claim makes ready, so that it holds locks briefly."""


class Messages(abc.ABC):
    """Reads and writes one namespace's messages in the caller's transaction, from any thread.

    `now` is the present moment, from `Database.now`; `until`, when a lease or a sign of life ends.

    Args:
        database: where.
        namespace: whose.
    """

    claims_first: ClassVar[bool] = False
    """Whether a claim costs no more than a look whether there is something to claim."""

    def __init__(self, database: Database, namespace: str) -> None:
        self.namespace = namespace
        self._statements = MessageStatements(database.schema, database.dialect)

    # -- what a service says in its own words ----------------------------------------------------

    @abc.abstractmethod
    def insert(self, cursor: Cursor, messages: Sequence[QueuedMessage], now: float) -> None:
        """Queue messages in order, but those whose id is there already."""

    @abc.abstractmethod
    def is_one_claim(self, queues: Sequence[str]) -> bool:
        """Tell whether each statement of `claim` may stand alone, with no transaction around."""

    @abc.abstractmethod
    def claim(
        self,
        cursor: Cursor,
        queues: Sequence[str],
        limit: int,
        *,
        now: float,
        until: float,
        worker: str,
    ) -> list[Delivery]:
        """Lease up to `limit` messages that are due, larger priority first."""

    @abc.abstractmethod
    def sign(self, cursor: Cursor, worker: str, queue: str, until: float) -> None:
        """Write down that `worker` serves `queue`."""

    def ring(self, cursor: Cursor, queues: Sequence[str]) -> None:  # noqa: B027 - most cannot
        """Wake who waits for messages in some queues, once this transaction is committed."""

    # -- what is the same for all ----------------------------------------------------------------

    def at(self, queue: str) -> dict[str, object]:
        """Return the parameters that name a queue."""
        return {"namespace": self.namespace, "queue": queue}

    def next_due(self, cursor: Cursor, queues: Sequence[str]) -> float:
        """Return when something is due, without asking for any lock; infinity for never."""
        soonest = float("inf")
        for queue in queues:
            cursor.execute(self._statements.next_due, self.at(queue))
            ((due_at,),) = cursor.fetchall()
            if due_at is not None:
                soonest = min(soonest, due_at)
        return soonest

    def is_one_settlement(self, settlements: Sequence[Settlement]) -> bool:
        """Tell whether `settle` runs a single statement, which needs no transaction around it."""
        return len(settlements) == 1 and settlements[0].action is Action.ACK

    def settle(self, cursor: Cursor, settlements: Sequence[Settlement], now: float) -> list[bool]:
        """End deliveries; tell for each whether it was still its holder's."""
        answers = [False] * len(settlements)
        # In the order in which `renew` goes too: two who lock rows in one order never deadlock.
        for place in sorted(
            range(len(settlements)), key=lambda place: settlements[place].delivery.message_id
        ):
            answers[place] = self._settle(cursor, settlements[place], now)
        released = {
            settlement.delivery.queue
            for settlement, is_ours in zip(settlements, answers, strict=True)
            if is_ours and settlement.action is Action.RELEASE
        }
        if released:
            self.ring(cursor, sorted(released))
        return answers

    def renew(self, cursor: Cursor, deliveries: Sequence[Delivery], until: float) -> list[bool]:
        """Make leases end at `until`; tell for each whether it was still its holder's."""
        answers = [False] * len(deliveries)
        for place in sorted(range(len(deliveries)), key=lambda place: deliveries[place].message_id):
            held = self._held(deliveries[place])
            cursor.execute(self._statements.renew, held | {"until": until})
            # MySQL does not count a row that has this value already.
            answers[place] = cursor.rowcount == 1 or self._is_held(cursor, held)
        return answers

    def sign_only(
        self, cursor: Cursor, worker: str, queues: Sequence[str], *, now: float, until: float
    ) -> None:
        """Write down which queues `worker` serves, and forget what nobody believes any more."""
        for queue in sorted(set(queues)):
            self.sign(cursor, worker, queue, until)
        # Read first: a DELETE that looks for rows would lock, and wait for, those of the others.
        stale = {"worker": worker, "now": now, "until": until if queues else 0.0}
        cursor.execute(self._statements.stale_signs, {"namespace": self.namespace} | stale)
        for queue, name, seen_until in sorted(cursor.fetchall()):
            at = self.at(text(queue)) | {"worker": text(name), "until": seen_until}
            cursor.execute(self._statements.sign_off, at)

    def status(self, cursor: Cursor, queue: str, now: float) -> QueueStatus:
        """Count what is in a queue."""
        at = self.at(queue) | {"now": now}
        cursor.execute(self._statements.count, at)
        ready, delayed, leased, dead = cursor.fetchall()[0]
        cursor.execute(self._statements.workers, at)
        workers = tuple(text(name) for (name,) in cursor.fetchall())
        return QueueStatus(ready=ready, delayed=delayed, leased=leased, dead=dead, workers=workers)

    def purge(self, cursor: Cursor, queue: str, now: float) -> int:
        """Remove what is not leased, dead letters too; return how many there were."""
        cursor.execute(self._statements.purge, self.at(queue) | {"now": now})
        removed = cursor.rowcount
        cursor.execute(self._statements.purge_dead, self.at(queue))
        return removed + cursor.rowcount

    # -- below the surface -----------------------------------------------------------------------

    def _held(self, delivery: Delivery) -> dict[str, object]:
        return {
            "namespace": self.namespace,
            "message_id": delivery.message_id,
            "token": delivery.token,
        }

    def _settle(self, cursor: Cursor, settlement: Settlement, now: float) -> bool:
        held = self._held(settlement.delivery)
        if settlement.action is Action.RELEASE:
            cursor.execute(self._statements.release, held)
            return bool(cursor.rowcount == 1)
        if settlement.action is Action.BURY:
            if not self._is_held(cursor, held):
                return False
            reason = readable(settlement.reason)
            cursor.execute(self._statements.bury, held | {"reason": reason, "now": now})
        cursor.execute(self._statements.remove, held)
        is_ours = bool(cursor.rowcount == 1)
        if is_ours and settlement.message is not None:
            self.insert(cursor, [settlement.message], now)
        return is_ours

    def _is_held(self, cursor: Cursor, held: dict[str, object]) -> bool:
        """Tell whether nobody else has taken a delivery; until the end nobody can."""
        cursor.execute(self._statements.hold, held)
        return bool(cursor.fetchall())


class MessagesInSteps(Messages):
    """Claims in three steps per queue, in a transaction around them."""

    def is_one_claim(self, queues: Sequence[str]) -> bool:
        return False

    @abc.abstractmethod
    def promote(self, cursor: Cursor, queue: str, limit: int, now: float) -> None:
        """Make up to `limit` messages ready whose moment has come."""

    @abc.abstractmethod
    def ready(
        self, cursor: Cursor, queue: str, limit: int
    ) -> list[tuple[int, int, str | bytes, bytes, int]]:
        """Lock up to `limit` ready messages that nobody else has locked, in order of delivery.

        Returns of each the number, priority, message id, body, and the count of deliveries.
        """

    @abc.abstractmethod
    def lease(
        self, cursor: Cursor, seqs: Sequence[int], until: float, worker: str, fetch_id: str
    ) -> None:
        """Lease messages that are locked here; the token of each is `<fetch_id>-<number>`."""

    def claim(
        self,
        cursor: Cursor,
        queues: Sequence[str],
        limit: int,
        *,
        now: float,
        until: float,
        worker: str,
    ) -> list[Delivery]:
        ready: list[tuple[int, int, int, str, str, bytes, int]] = []
        for place, queue in enumerate(queues):
            self.promote(cursor, queue, PROMOTED, now)
            ready += [
                (-priority, place, seq, queue, text(message_id), body, deliveries)
                for seq, priority, message_id, body, deliveries in self.ready(cursor, queue, limit)
            ]
        ready.sort()
        del ready[limit:]
        if not ready:
            return []
        fetch_id = uuid.uuid4().hex
        self.lease(cursor, sorted(row[2] for row in ready), until, worker, fetch_id)
        return [
            Delivery(
                message_id=message_id,
                queue=queue,
                body=body,
                deliveries=deliveries + 1,
                token=f"{fetch_id}-{seq}",
            )
            for _, _, seq, queue, message_id, body, deliveries in ready
        ]


def due_at(message: QueuedMessage, now: float) -> float:
    """Return the moment that `messages.due_at` has for a new message."""
    return READY if message.eta is None or message.eta <= now else message.eta


def parts(messages: Sequence[QueuedMessage], most: int) -> Iterator[list[QueuedMessage]]:
    """Cut messages, in order, into parts that together have `most` bytes, or one that has more."""
    part: list[QueuedMessage] = []
    size = 0
    for message in messages:
        if part and (size + len(message.body) > most or len(part) == _ROWS):
            yield part
            part, size = [], 0
        part.append(message)
        size += len(message.body)
    if part:
        yield part
