"""The other task queues' result stores, used as their workers and their handles use them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine, Sequence
from datetime import timedelta
from typing import Any

from benchmarks.contenders.contender import KEPT, Contender, driver

__all__ = ["Arq", "Dramatiq", "Huey", "Rq", "Taskiq"]


class Dramatiq(Contender):
    """Its Redis and Memcached result backends; a wait on Redis is a blocking move of a list."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._message: Any = driver("dramatiq").Message
        if url.startswith("memcached:"):
            servers = [url.partition("://")[2].rstrip("/")]
            backend = driver("dramatiq.results.backends.memcached").MemcachedBackend
            self._backend: Any = backend(servers=servers)
        else:
            backend = driver("dramatiq.results.backends.redis").RedisBackend
            self._backend = backend(url=url)

    def _of(self, task_id: str) -> Any:
        return self._message(
            queue_name="bench", actor_name="bench", args=(), kwargs={}, options={},
            message_id=task_id,
        )  # fmt: skip

    def store(self, task_id: str, value: object, address: str = "") -> None:
        self._backend.store_result(self._of(task_id), value, KEPT * 1000)

    def fetch(self, task_id: str) -> Any:
        return self._backend.get_result(self._of(task_id))

    def wait(self, task_id: str, timeout: float) -> Any:
        return self._backend.get_result(
            self._of(task_id), block=True, timeout=round(timeout * 1000)
        )


class Huey(Contender):
    """Its Redis storage with notify_result, which a waiter needs not to poll; or its SQLite."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        huey = driver("huey")
        if url.startswith("sqlite:"):
            path = url.partition("://")[2].removeprefix("/") + "-huey"
            self._huey: Any = huey.SqliteHuey("bench", filename=path)
        else:
            self._huey = huey.RedisHuey("bench", url=url, notify_result=True)
        self._result: Any = driver("huey.api").Result
        self._task: Any = self._huey.task()(_nothing).task_class

    def _handle(self, task_id: str) -> Any:
        return self._result(self._huey, self._task(id=task_id))

    def store(self, task_id: str, value: object, address: str = "") -> None:
        self._huey.put_result(task_id, value)

    def fetch(self, task_id: str) -> Any:
        return self._handle(task_id).get()

    def forget(self, task_id: str) -> None:
        self._huey.get(task_id)

    def wait(self, task_id: str, timeout: float) -> Any:
        return self._handle(task_id).get(blocking=True, timeout=timeout)


def _nothing() -> None:
    """Do nothing."""


class Rq(Contender):
    """Its Redis results: a stream for each job, which a waiter blocks on."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._connection: Any = driver("redis").Redis.from_url(url)
        self._job: Any = driver("rq.job").Job
        self._result: Any = driver("rq.results").Result

    def _of(self, task_id: str) -> Any:
        return self._job(task_id, connection=self._connection)

    def store(self, task_id: str, value: object, address: str = "") -> None:
        self._result.create(
            self._of(task_id), self._result.Type.SUCCESSFUL, ttl=KEPT, return_value=value
        )

    def fetch(self, task_id: str) -> Any:
        return self._result.fetch_latest(self._of(task_id)).return_value

    def forget(self, task_id: str) -> None:
        self._result.delete_all(self._of(task_id))

    def wait(self, task_id: str, timeout: float) -> Any:
        return self._result.fetch_latest(self._of(task_id), timeout=round(timeout)).return_value


class _Asynchronous(Contender):
    """One event loop in a thread serves all threads that call."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


class Taskiq(_Asynchronous):
    """taskiq-redis; its handles look every 0.2 s."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        redis = driver("taskiq_redis")
        self._backend: Any = redis.RedisAsyncResultBackend(url, result_ex_time=KEPT)
        self._taskiq: Any = driver("taskiq")
        self._run(self._backend.startup())

    def store(self, task_id: str, value: object, address: str = "") -> None:
        result = self._taskiq.TaskiqResult(is_err=False, return_value=value, execution_time=0.0)
        self._run(self._backend.set_result(task_id, result))

    def fetch(self, task_id: str) -> Any:
        return self.wait(task_id, 30.0)

    def wait(self, task_id: str, timeout: float) -> Any:
        handle = self._taskiq.AsyncTaskiqTask(task_id, self._backend)
        return self._run(handle.wait_result(timeout=timeout)).return_value

    def wait_many(self, task_ids: Sequence[str], timeout: float) -> list[Any]:
        async def gather() -> list[Any]:
            handles = [self._taskiq.AsyncTaskiqTask(each, self._backend) for each in task_ids]
            found = await asyncio.gather(*(each.wait_result(timeout=timeout) for each in handles))
            return [each.return_value for each in found]

        values: list[Any] = self._run(gather())
        return values

    def fetch_many(self, task_ids: Sequence[str]) -> list[Any]:
        return self.wait_many(task_ids, 60.0)

    def await_many(self, task_ids: Sequence[str], timeout: float) -> list[Any]:
        return self.wait_many(task_ids, timeout)


class Arq(_Asynchronous):
    """Its jobs look every 0.5 s."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._jobs: Any = driver("arq.jobs")
        connections = driver("arq.connections")
        settings = connections.RedisSettings.from_dsn(url)
        self._pool: Any = self._run(connections.create_pool(settings))
        constants = driver("arq.constants")
        self._prefix: str = constants.result_key_prefix
        self._queue: str = constants.default_queue_name

    def expect(self, task_ids: Sequence[str]) -> None:
        # It waits only for what is in the queue.
        now = time.time() * 1000
        self._run(self._pool.zadd(self._queue, dict.fromkeys(task_ids, now)))

    def store(self, task_id: str, value: object, address: str = "") -> None:
        body = self._jobs.serialize_result(
            "bench", (), {}, 1, 0, True, value, 0, 0, "ref", "bench", task_id
        )
        expires = timedelta(seconds=KEPT)
        self._run(self._pool.set(self._prefix + task_id, body, px=expires))

    def fetch(self, task_id: str) -> Any:
        return self.wait(task_id, 30.0)

    def wait(self, task_id: str, timeout: float) -> Any:
        return self._run(self._jobs.Job(task_id, self._pool).result(timeout=timeout))

    def await_many(self, task_ids: Sequence[str], timeout: float) -> list[Any]:
        async def gather() -> list[Any]:
            jobs = [self._jobs.Job(each, self._pool) for each in task_ids]
            return list(await asyncio.gather(*(each.result(timeout=timeout) for each in jobs)))

        values: list[Any] = self._run(gather())
        return values
