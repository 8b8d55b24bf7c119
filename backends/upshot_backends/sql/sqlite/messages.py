"""The rows of `messages` in SQLite's words."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from typing import final

from upshot.broker import Delivery, QueuedMessage
from upshot_backends.sql.connection import Cursor, Database
from upshot_backends.sql.messages import PROMOTED, MessagesInSteps, due_at
from upshot_backends.sql.scripts import scripts

__all__ = ["SqliteMessages"]


@final
class SqliteMessages(MessagesInSteps):
    """Only one connection writes at a time, so nothing needs a lock of its own."""

    def __init__(self, database: Database, namespace: str) -> None:
        super().__init__(database, namespace)
        read = scripts(__package__ or "", database.schema, database.dialect)
        self._publish, self._sign = read("publish"), read("sign")
        self._claim, self._come = read("claim"), read("come")
        self._promote, self._ready, self._lease = read("promote"), read("ready"), read("lease")

    def insert(self, cursor: Cursor, messages: Sequence[QueuedMessage], now: float) -> None:
        for message in messages:
            cursor.execute(
                self._publish,
                {
                    "namespace": self.namespace,
                    "queue": message.queue,
                    "message_id": message.message_id,
                    "priority": message.priority,
                    "due_at": due_at(message, now),
                    "body": message.body,
                },
            )

    def sign(self, cursor: Cursor, worker: str, queue: str, until: float) -> None:
        cursor.execute(self._sign, self.at(queue) | {"worker": worker, "until": until})

    def is_one_claim(self, queues: Sequence[str]) -> bool:
        return len(queues) == 1

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
        if not self.is_one_claim(queues):
            return super().claim(cursor, queues, limit, now=now, until=until, worker=worker)
        at = self.at(queues[0])
        cursor.execute(self._come, at | {"now": now})
        if cursor.fetchall() != [(0,)]:
            self.promote(cursor, queues[0], PROMOTED, now)  # harmless if nothing is claimed then
        values = {"limit": limit, "until": until, "worker": worker}
        cursor.execute(self._claim, at | values | {"fetch_id": uuid.uuid4().hex})
        return [
            Delivery(
                message_id=message_id,
                queue=queues[0],
                body=body,
                deliveries=deliveries,
                token=token,
            )
            for _, _, message_id, body, deliveries, token in sorted(cursor.fetchall())
        ]

    def promote(self, cursor: Cursor, queue: str, limit: int, now: float) -> None:
        cursor.execute(self._promote, self.at(queue) | {"limit": limit, "now": now})

    def ready(
        self, cursor: Cursor, queue: str, limit: int
    ) -> list[tuple[int, int, str | bytes, bytes, int]]:
        cursor.execute(self._ready, self.at(queue) | {"limit": limit})
        return cursor.fetchall()

    def lease(
        self, cursor: Cursor, seqs: Sequence[int], until: float, worker: str, fetch_id: str
    ) -> None:
        cursor.execute(
            self._lease,
            {"seqs": json.dumps(seqs), "until": until, "worker": worker, "fetch_id": fetch_id},
        )
