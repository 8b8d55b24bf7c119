"""sqlite3 by itself, with a write-ahead log; whoever waits looks whether the file has changed."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from benchmarks.contenders.contender import KEPT, Contender

__all__ = ["Raw"]

_PAUSE: Final = 0.001  # seconds between two looks
_STORE: Final = (
    "INSERT INTO bench VALUES (?, ?, ?)"
    " ON CONFLICT (id) DO UPDATE SET body = excluded.body, expires = excluded.expires"
)
_FETCH: Final = "SELECT body FROM bench WHERE id = ? AND expires > ?"


class Raw(Contender):
    """An upsert, SELECT, DELETE; one connection for each thread."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._path = url.partition("://")[2].removeprefix("/") + "-raw"
        self._own = threading.local()
        self._connection.executescript(
            "CREATE TABLE IF NOT EXISTS bench (id TEXT PRIMARY KEY, body BLOB, expires REAL);"
            # Without it, removing what has expired would read everything.
            "CREATE INDEX IF NOT EXISTS bench_expires ON bench (expires)"
        )

    @property
    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._own, "connection", None)
        if connection is None:
            connection = self._own.connection = sqlite3.connect(
                self._path, timeout=30, isolation_level=None
            )
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")  # as upshot has it
        return connection

    def store(self, task_id: str, value: object, address: str = "") -> None:
        self._connection.execute(_STORE, (task_id, json.dumps(value), time.time() + KEPT))

    def store_many(self, values: Mapping[str, object], address: str = "") -> None:
        expires = time.time() + KEPT
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(
            _STORE, [(task_id, json.dumps(value), expires) for task_id, value in values.items()]
        )
        self._connection.execute("COMMIT")

    def fetch(self, task_id: str) -> Any:
        row = self._connection.execute(_FETCH, (task_id, time.time())).fetchone()
        return json.loads(row[0])

    def fetch_many(self, task_ids: Sequence[str]) -> list[Any]:
        found = self._found(task_ids)
        return [found[task_id] for task_id in task_ids]

    def forget(self, task_id: str) -> None:
        self._connection.execute("DELETE FROM bench WHERE id = ?", (task_id,))

    def wait(self, task_id: str, timeout: float) -> Any:
        return self.wait_many([task_id], timeout)[0]

    def wait_many(self, task_ids: Sequence[str], timeout: float) -> list[Any]:
        until, seen = time.monotonic() + timeout, None
        while time.monotonic() < until:
            version = self._connection.execute("PRAGMA data_version").fetchone()
            if version != seen:
                seen, found = version, self._found(task_ids)
                if len(found) == len(task_ids):
                    return [found[task_id] for task_id in task_ids]
            time.sleep(_PAUSE)
        raise TimeoutError

    def _found(self, task_ids: Sequence[str]) -> dict[str, Any]:
        rows = self._connection.execute(
            "SELECT id, body FROM bench"
            " WHERE id IN (SELECT value FROM json_each(?)) AND expires > ?",
            (json.dumps(list(task_ids)), time.time()),
        )
        return {task_id: json.loads(body) for task_id, body in rows}
