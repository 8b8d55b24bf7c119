"""pymongo by itself: a document for each result, and a change stream for whoever waits."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.contenders.contender import Contender, driver

__all__ = ["Raw"]


class Raw(Contender):
    """An upsert that a majority confirms; find; delete; watch."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._pymongo = driver("pymongo")
        self._client: Any = self._pymongo.MongoClient(
            url, w="majority", readConcernLevel="majority"
        )
        self._results: Any = self._client.get_default_database("bench").bench_results

    def store(self, task_id: str, value: object, address: str = "") -> None:
        document = {"body": json.dumps(value).encode()}
        self._results.update_one({"_id": task_id}, {"$set": document}, upsert=True)

    def store_many(self, values: Mapping[str, object], address: str = "") -> None:
        self._results.bulk_write(
            [
                self._pymongo.UpdateOne(
                    {"_id": task_id}, {"$set": {"body": json.dumps(value).encode()}}, upsert=True
                )
                for task_id, value in values.items()
            ],
            ordered=False,
        )

    def fetch(self, task_id: str) -> Any:
        return json.loads(self._results.find_one({"_id": task_id})["body"])

    def fetch_many(self, task_ids: Sequence[str]) -> list[Any]:
        found = {
            each["_id"]: json.loads(each["body"])
            for each in self._results.find({"_id": {"$in": list(task_ids)}})
        }
        return [found[task_id] for task_id in task_ids]

    def forget(self, task_id: str) -> None:
        self._results.delete_one({"_id": task_id})

    def wait(self, task_id: str, timeout: float) -> Any:
        return self.wait_many([task_id], timeout)[0]

    def wait_many(self, task_ids: Sequence[str], timeout: float) -> list[Any]:
        wanted, found = list(task_ids), dict[str, Any]()
        until = time.monotonic() + timeout
        pipeline = [{"$match": {"documentKey._id": {"$in": wanted}}}]
        with self._results.watch(
            pipeline, full_document="updateLookup", max_await_time_ms=1000
        ) as stream:
            for each in self._results.find({"_id": {"$in": wanted}}):
                found[each["_id"]] = json.loads(each["body"])
            while len(found) < len(wanted):
                if time.monotonic() > until:
                    raise TimeoutError
                change = stream.try_next()
                if change is not None:
                    document = change["fullDocument"]
                    found[document["_id"]] = json.loads(document["body"])
        return [found[task_id] for task_id in task_ids]

    def close(self) -> None:
        self._client.close()
