"""upshot, through what its users see: a client that stores, handles that fetch and wait."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.contenders.contender import Contender
from upshot import App, clock
from upshot.outcome import encode_value
from upshot.record import Record
from upshot.serializers import Codecs, JsonSerializer
from upshot.states import State

__all__ = ["Upshot"]

_TOKEN = "3aa05877e8cf0d0c-0"
"""As long as that of a delivery."""

_PATIENCE = 30.0  # seconds for what should be there at once; also as a service may evict it


class Upshot(Contender):
    """Any service."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._app = App(broker="memory://", backend=url)
        self._client = self._app.results
        self._codecs = Codecs({"json": JsonSerializer()})
        self._worker = f"{socket.gethostname()}:{os.getpid()}"

    def address(self) -> str:
        return self._client.backend.reply_to

    def expect(self, task_ids: Sequence[str]) -> None:
        if address := self.address():  # results that are carried need somebody to carry them to
            records = [Record(task_id=each, state=State.QUEUED) for each in task_ids]
            encoded = [self._client.encode(each, reply_to=address) for each in records]
            self._client.store_encoded(encoded)

    def store(self, task_id: str, value: object, address: str = "") -> None:
        self._client.store(self._record(task_id, value), reply_to=address)

    def fetch(self, task_id: str) -> Any:
        return self._app.AsyncResult(task_id).get(timeout=_PATIENCE)

    def forget(self, task_id: str) -> None:
        handle = self._app.AsyncResult(task_id)
        handle.is_plain = True  # as one that `delay` returned knows: its task yields nothing
        handle.forget()

    def store_many(self, values: Mapping[str, object], address: str = "") -> None:
        client = self._client
        client.store_encoded(
            [
                client.encode(self._record(task_id, value), reply_to=address)
                for task_id, value in values.items()
            ]
        )

    def fetch_many(self, task_ids: Sequence[str]) -> list[Any]:
        return self._app.ResultSet(task_ids).get(timeout=_PATIENCE)

    def wait(self, task_id: str, timeout: float) -> Any:
        return self._app.AsyncResult(task_id).get(timeout)

    def wait_many(self, task_ids: Sequence[str], timeout: float) -> list[Any]:
        return self._app.ResultSet(task_ids).get(timeout)

    def await_many(self, task_ids: Sequence[str], timeout: float) -> list[Any]:
        async def gather() -> list[Any]:
            handles = map(self._app.AsyncResult, task_ids)
            return list(await asyncio.gather(*(each.aget(timeout) for each in handles)))

        return asyncio.run(gather())

    def close(self) -> None:
        self._app.close()

    def _record(self, task_id: str, value: object) -> Record:
        """Return what a worker stores, with all that it knows of the task."""
        now = clock.now()
        return Record(
            task_id=task_id,
            state=State.SUCCESS,
            attempt=1,
            name="tasks.echo",
            queue="default",
            worker=self._worker,
            token=_TOKEN,
            queued_at=now,
            started_at=now,
            finished_at=now,
            outcome=encode_value(self._codecs, value),
        )
