"""The rows of `messages` in PostgreSQL's words."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Final, final

from upshot.backend import StoredRecord
from upshot.broker import Action, Delivery, QueuedMessage, Settlement
from upshot_backends.sql.connection import Cursor
from upshot_backends.sql.messages import Messages, due_at, parts
from upshot_backends.sql.postgresql.connection import PostgresqlDatabase
from upshot_backends.sql.postgresql.records import APPLIED, batch_values, record_values
from upshot_backends.sql.scripts import scripts

__all__ = ["PostgresqlMessages"]

_PART: Final = 16 * 2**20  # bytes of bodies in one statement; the server takes up to 1 GB
_RING: Final = "SELECT pg_notify(%(channel)s, bell) FROM unnest(%(bells)b::text[]) AS bell"
# One row: how many records applied, how many messages were removed, and what was leased or NULLs.
_EXCHANGED: Final = """
    SELECT (SELECT count(*) FROM told), (SELECT count(*) FROM ended), leased.*
    FROM (SELECT) AS always LEFT JOIN leased ON true
"""
_NOTHING_TOLD: Final = "told AS (SELECT WHERE false)"
_NEXT: Final = 1  # message that an exchange leases


@final
class PostgresqlMessages(Messages):
    """Publishing, claiming and an exchange are one statement each; publishing rings queues' bells.

    A bell is a payload on the channel for messages: the same 32 characters for a queue each time.
    """

    claims_first: ClassVar[bool] = True

    def __init__(self, database: PostgresqlDatabase, namespace: str) -> None:
        super().__init__(database, namespace)
        self._database = database
        read = scripts(__package__ or "", database.schema, database.dialect)
        patience, apply, publish = read("patience"), read("apply"), read("publish")
        self._publish = f"WITH {publish} {_RING}"
        self._publish_beside = f"WITH {patience}, {read('records')}, {apply}, {publish} {_RING}"
        self._sign, self._next_due = read("sign"), read("next_due")
        held, ack, due, claim = read("held"), read("ack"), read("due"), read("claim")
        self._ack = f"WITH {patience}, {held} {ack}"
        self._claim = f"WITH {read('wanted')}, {due} {claim}"
        ended = f"{patience}, {held}, ended AS ({ack})"
        leased = f"{read('wanted_then')}, {due}, leased AS ({claim})"
        told = f"{read('record')}, {apply}, told AS MATERIALIZED ({APPLIED})"
        self._exchange = f"WITH {ended}, {leased}, {_NOTHING_TOLD} {_EXCHANGED}"
        self._exchange_beside = f"WITH {ended}, {leased}, {told} {_EXCHANGED}"

    def insert(self, cursor: Cursor, messages: Sequence[QueuedMessage], now: float) -> None:
        for part in parts(messages, _PART):
            cursor.execute(self._publish, self._values(part, now))

    def is_one_statement(self, messages: Sequence[QueuedMessage]) -> bool:
        """Tell whether `insert` runs a single statement, which needs no transaction around it."""
        return len(list(parts(messages, _PART))) <= 1

    def insert_beside(
        self,
        cursor: Cursor,
        messages: Sequence[QueuedMessage],
        records: Sequence[StoredRecord],
        now: float,
    ) -> None:
        """Queue messages and store records in one statement.

        The records are of one rank and of different keys, and none is terminal: nobody is told.
        """
        in_order = sorted(records, key=lambda record: record.key)  # as `store` locks rows
        values = self._values(messages, now) | batch_values(in_order, now)
        cursor.execute(self._publish_beside, values)

    def ring(self, cursor: Cursor, queues: Sequence[str]) -> None:
        cursor.execute(_RING, {"channel": self.channel, "bells": self.bells(queues)})

    def _values(self, messages: Sequence[QueuedMessage], now: float) -> dict[str, object]:
        return {
            "namespace": self.namespace,
            "queues": [message.queue for message in messages],
            "message_ids": [message.message_id for message in messages],
            "priorities": [message.priority for message in messages],
            "moments": [due_at(message, now) for message in messages],
            "messages": [message.body for message in messages],
            "channel": self.channel,
            "bells": self.bells({message.queue for message in messages}),
        }

    @property
    def channel(self) -> str:
        """Where bells ring, in an open database."""
        return self._database.channel("messages")

    def bells(self, queues: Iterable[str]) -> list[str]:
        """Return the bells of some queues."""
        return sorted(_bell(self.namespace, queue) for queue in queues)

    def is_one_claim(self, queues: Sequence[str]) -> bool:
        return True

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
        values = self._claiming(queues, limit, now=now, until=until, worker=worker)
        cursor.execute(self._claim, values)
        return [_delivery(row) for row in sorted(cursor.fetchall())]

    def exchange(
        self,
        cursor: Cursor,
        delivery: Delivery,
        record: StoredRecord | None,
        queues: Sequence[str],
        *,
        now: float,
        until: float,
        worker: str,
    ) -> tuple[bool, bool, list[Delivery]]:
        """Remove a message, store the record if there is one, and claim, in one statement.

        Returns whether the record applied, whether the delivery was still its holder's, and what
        was claimed.
        """
        values = self._claiming(queues, _NEXT, now=now, until=until, worker=worker)
        values |= self._ending([delivery])
        if record is None:
            cursor.execute(self._exchange, values)
        else:
            channel = self._database.channel("results")
            cursor.execute(self._exchange_beside, values | record_values(record, now, channel))
        ((applied, ended, *row),) = cursor.fetchall()
        is_nothing = row[0] is None
        return applied == 1, ended == 1, [] if is_nothing else [_delivery(row)]

    def _claiming(
        self, queues: Sequence[str], limit: int, *, now: float, until: float, worker: str
    ) -> dict[str, object]:
        return {
            "namespace": self.namespace,
            "queues": list(queues),
            "limit": limit,
            "now": now,
            "until": until,
            "worker": worker,
            "fetch_id": uuid.uuid4().hex,
        }

    def is_one_settlement(self, settlements: Sequence[Settlement]) -> bool:
        ids = {settlement.delivery.message_id for settlement in settlements}
        return len(ids) == len(settlements) and all(
            settlement.action is Action.ACK for settlement in settlements
        )

    def settle(self, cursor: Cursor, settlements: Sequence[Settlement], now: float) -> list[bool]:
        if not self.is_one_settlement(settlements):
            return super().settle(cursor, settlements, now)
        deliveries = [settlement.delivery for settlement in settlements]
        cursor.execute(self._ack, self._ending(deliveries))
        removed = {message_id for (message_id,) in cursor.fetchall()}
        return [delivery.message_id in removed for delivery in deliveries]

    def _ending(self, deliveries: Sequence[Delivery]) -> dict[str, object]:
        return {
            "namespace": self.namespace,
            "message_ids": [delivery.message_id for delivery in deliveries],
            "tokens": [delivery.token for delivery in deliveries],
        }

    def next_due(self, cursor: Cursor, queues: Sequence[str]) -> float:
        cursor.execute(self._next_due, {"namespace": self.namespace, "queues": list(queues)})
        ((soonest,),) = cursor.fetchall()
        return float("inf") if soonest is None else float(soonest)

    def sign(self, cursor: Cursor, worker: str, queue: str, until: float) -> None:
        cursor.execute(self._sign, self.at(queue) | {"worker": worker, "until": until})


def _delivery(row: Sequence[Any]) -> Delivery:
    """Read what `claim.sql` returns of one message."""
    _, _, _, message_id, queue, body, deliveries, token = row
    return Delivery(
        message_id=message_id, queue=queue, body=body, deliveries=deliveries, token=token
    )


def _bell(namespace: str, queue: str) -> str:
    """Return a payload of bounded length for a name of any length."""
    name = f"{len(namespace)}:{namespace}{queue}".encode(errors="surrogatepass")
    return hashlib.sha256(name).hexdigest()[:32]
