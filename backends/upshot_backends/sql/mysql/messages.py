"""The rows of `messages` in the words of MySQL and MariaDB."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, final

from upshot.broker import QueuedMessage
from upshot_backends.sql.connection import Cursor, Database
from upshot_backends.sql.messages import MessagesInSteps, due_at, parts
from upshot_backends.sql.mysql.records import base64_of
from upshot_backends.sql.scripts import scripts

__all__ = ["MysqlMessages"]

_PART: Final = 256 * 2**10  # bytes of bodies in one statement, a quarter of the smallest packet
_ROW: Final = (
    "(%(namespace)s, %(queue{n})s, %(message_id{n})s, %(priority{n})s, %(due_at{n})s, 0, "
    "FROM_BASE64(%(body{n})s))"
)


@final
class MysqlMessages(MessagesInSteps):
    """Messages that another claim has locked are passed over, not waited for."""

    def __init__(self, database: Database, namespace: str) -> None:
        super().__init__(database, namespace)
        read = scripts(__package__ or "", database.schema, database.dialect)
        self._publish, self._sign, self._come = read("publish"), read("sign"), read("come")
        self._promote, self._ready, self._lease = read("promote"), read("ready"), read("lease")

    def insert(self, cursor: Cursor, messages: Sequence[QueuedMessage], now: float) -> None:
        for part in parts(messages, _PART):
            rows = ", ".join(_ROW.replace("{n}", str(number)) for number in range(len(part)))
            values: dict[str, object] = {"namespace": self.namespace}
            for number, message in enumerate(part):
                values |= {
                    f"queue{number}": message.queue,
                    f"message_id{number}": message.message_id,
                    f"priority{number}": message.priority,
                    f"due_at{number}": due_at(message, now),
                    f"body{number}": base64_of(message.body),
                }
            cursor.execute(self._publish.replace("{rows}", rows), values)

    def sign(self, cursor: Cursor, worker: str, queue: str, until: float) -> None:
        cursor.execute(self._sign, self.at(queue) | {"worker": worker, "until": until})

    def promote(self, cursor: Cursor, queue: str, limit: int, now: float) -> None:
        cursor.execute(self._come, self.at(queue) | {"limit": limit, "now": now})
        seqs = [seq for (seq,) in cursor.fetchall()]
        if seqs:
            cursor.execute(self._promote, {"seqs": seqs})

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
            {"seqs": list(seqs), "until": until, "worker": worker, "fetch_id": fetch_id},
        )
