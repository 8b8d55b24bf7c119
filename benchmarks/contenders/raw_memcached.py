"""pymemcache by itself; whoever waits has to ask again."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from benchmarks.contenders.contender import KEPT, Contender, driver

__all__ = ["Raw"]

_PAUSE: Final = 0.005  # seconds between two looks


class Raw(Contender):
    """set, get, delete, get_many over a pool of connections."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        host, _, port = url.partition("://")[2].rstrip("/").partition(":")
        self._client: Any = driver("pymemcache").PooledClient((host, int(port)), no_delay=True)

    def store(self, task_id: str, value: object, address: str = "") -> None:
        self._client.set(task_id, json.dumps(value), expire=KEPT, noreply=False)

    def store_many(self, values: Mapping[str, object], address: str = "") -> None:
        encoded = {task_id: json.dumps(value) for task_id, value in values.items()}
        self._client.set_many(encoded, expire=KEPT, noreply=False)

    def fetch(self, task_id: str) -> Any:
        return json.loads(self._client.get(task_id))

    def fetch_many(self, task_ids: Sequence[str]) -> list[Any]:
        found = self._client.get_many(task_ids)
        return [json.loads(found[task_id]) for task_id in task_ids]

    def forget(self, task_id: str) -> None:
        self._client.delete(task_id, noreply=False)

    def wait(self, task_id: str, timeout: float) -> Any:
        return self.wait_many([task_id], timeout)[0]

    def wait_many(self, task_ids: Sequence[str], timeout: float) -> list[Any]:
        until = time.monotonic() + timeout
        while len(found := self._client.get_many(task_ids)) < len(task_ids):
            if time.monotonic() > until:
                raise TimeoutError
            time.sleep(_PAUSE)
        return [json.loads(found[task_id]) for task_id in task_ids]

    def close(self) -> None:
        self._client.close()
