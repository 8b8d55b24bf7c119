"""psycopg by itself: an upsert that notifies in the same statement, and LISTEN for who waits."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from benchmarks.contenders.contender import KEPT, Contender, driver

__all__ = ["Raw"]

_STORE: Final = (
    "WITH stored AS (INSERT INTO bench VALUES (%s, %s, %s)"
    " ON CONFLICT (id) DO UPDATE SET body = excluded.body, expires = excluded.expires"
    " RETURNING id) SELECT pg_notify('bench', id) FROM stored"
)
_STORE_MANY: Final = (
    "WITH stored AS (INSERT INTO bench SELECT id, body, %s FROM unnest(%s::text[], %s::bytea[])"
    " AS given (id, body) ON CONFLICT (id) DO UPDATE SET body = excluded.body,"
    " expires = excluded.expires RETURNING id) SELECT pg_notify('bench', id) FROM stored"
)
_FETCH: Final = "SELECT body FROM bench WHERE id = %s AND expires > %s"


class Raw(Contender):
    """One prepared statement for everything; one connection for each thread."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._psycopg = driver("psycopg")
        self._own = threading.local()
        self._run(
            "CREATE TABLE IF NOT EXISTS bench"
            " (id text PRIMARY KEY, body bytea, expires double precision)"
        )
        # Without it, removing what has expired would read everything.
        self._run("CREATE INDEX IF NOT EXISTS bench_expires ON bench (expires)")

    @property
    def _connection(self) -> Any:
        connection: Any = getattr(self._own, "connection", None)
        if connection is None:
            connection = self._own.connection = self._psycopg.connect(self.url, autocommit=True)
        return connection

    def _run(self, statement: str, *values: object) -> Any:
        return self._connection.execute(statement, values, prepare=True)

    def store(self, task_id: str, value: object, address: str = "") -> None:
        self._run(_STORE, task_id, json.dumps(value).encode(), time.time() + KEPT).fetchall()

    def store_many(self, values: Mapping[str, object], address: str = "") -> None:
        bodies = [json.dumps(value).encode() for value in values.values()]
        self._run(_STORE_MANY, time.time() + KEPT, list(values), bodies).fetchall()

    def fetch(self, task_id: str) -> Any:
        (body,) = self._run(_FETCH, task_id, time.time()).fetchone()
        return json.loads(body)

    def fetch_many(self, task_ids: Sequence[str]) -> list[Any]:
        found = self._found(task_ids)
        return [found[task_id] for task_id in task_ids]

    def forget(self, task_id: str) -> None:
        self._run("DELETE FROM bench WHERE id = %s", task_id)

    def wait(self, task_id: str, timeout: float) -> Any:
        return self.wait_many([task_id], timeout)[0]

    def wait_many(self, task_ids: Sequence[str], timeout: float) -> list[Any]:
        wanted, until = set(task_ids), time.monotonic() + timeout
        with self._psycopg.connect(self.url, autocommit=True) as listening:
            listening.execute("LISTEN bench")
            found = self._found(task_ids)
            while len(found) < len(wanted):
                fresh = {
                    notice.payload
                    for notice in listening.notifies(timeout=1.0, stop_after=1)
                    if notice.payload in wanted
                }
                found |= self._found(list(fresh)) if fresh else {}
                if time.monotonic() > until:
                    raise TimeoutError
        return [found[task_id] for task_id in task_ids]

    def _found(self, task_ids: Sequence[str]) -> dict[str, Any]:
        rows = self._run(
            "SELECT id, body FROM bench WHERE id = ANY(%s) AND expires > %s",
            list(task_ids),
            time.time(),
        )
        return {task_id: json.loads(body) for task_id, body in rows.fetchall()}
