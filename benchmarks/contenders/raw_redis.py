"""redis-py by itself: a value with an expiry, and a message for whoever waits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.contenders.contender import KEPT, Contender, driver

__all__ = ["Raw"]


class Raw(Contender):
    """One SET and one PUBLISH in a pipeline; GET; MGET; DEL; SUBSCRIBE."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._client: Any = driver("redis").Redis.from_url(url, max_connections=1000)

    def store(self, task_id: str, value: object, address: str = "") -> None:
        self.store_many({task_id: value})

    def store_many(self, values: Mapping[str, object], address: str = "") -> None:
        pipeline = self._client.pipeline(transaction=False)
        for task_id, value in values.items():
            body = json.dumps(value)
            pipeline.set(task_id, body, ex=KEPT)
            pipeline.publish(task_id, body)
        pipeline.execute()

    def fetch(self, task_id: str) -> Any:
        return json.loads(self._client.get(task_id))

    def fetch_many(self, task_ids: Sequence[str]) -> list[Any]:
        return [json.loads(body) for body in self._client.mget(task_ids)]

    def forget(self, task_id: str) -> None:
        self._client.delete(task_id)

    def wait(self, task_id: str, timeout: float) -> Any:
        return self.wait_many([task_id], timeout)[0]

    def wait_many(self, task_ids: Sequence[str], timeout: float) -> list[Any]:
        found: dict[str, Any] = {}
        with self._client.pubsub() as pubsub:
            pubsub.subscribe(*task_ids)
            heard = 0
            while heard < len(task_ids):
                message = pubsub.get_message(timeout=timeout)
                heard += message is not None and message["type"] == "subscribe"
            for task_id, body in zip(task_ids, self._client.mget(task_ids), strict=True):
                if body is not None:
                    found[task_id] = json.loads(body)
            while len(found) < len(task_ids):
                message = pubsub.get_message(timeout=timeout)
                if message is None:
                    raise TimeoutError
                if message["type"] == "message":
                    found[message["channel"].decode()] = json.loads(message["data"])
        return [found[task_id] for task_id in task_ids]

    def await_many(self, task_ids: Sequence[str], timeout: float) -> list[Any]:
        return asyncio.run(self._gathered(task_ids, timeout))

    async def _gathered(self, task_ids: Sequence[str], timeout: float) -> list[Any]:
        futures = {each: asyncio.get_running_loop().create_future() for each in task_ids}

        async def receive() -> None:
            heard, done = 0, 0
            while done < len(futures):
                message = await pubsub.get_message(timeout=timeout)
                if message is None:
                    raise TimeoutError
                heard += message["type"] == "subscribe"
                if message["type"] == "message":
                    done += settle(message["channel"].decode(), message["data"])
                elif heard == len(futures):
                    there = zip(futures, await client.mget(task_ids), strict=True)
                    done += sum(settle(*each) for each in there)

        def settle(task_id: str, body: bytes | None) -> bool:
            fresh = body is not None and not futures[task_id].done()
            if fresh:
                futures[task_id].set_result(json.loads(body or b""))
            return fresh

        async with (
            driver("redis.asyncio").Redis.from_url(self.url) as client,
            client.pubsub() as pubsub,
        ):
            await pubsub.subscribe(*task_ids)
            receiving = asyncio.create_task(receive())
            found = await asyncio.gather(*futures.values())
            await receiving
        return list(found)

    def close(self) -> None:
        self._client.close()
