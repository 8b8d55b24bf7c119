"""Looks into a MongoDB server through pymongo, as raw documents of whatever collections there are.

A sharded cluster is not tested: no `mongos` is among the files that `make services` installs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from typing import Any, ClassVar, Final

from upshot.url import Url
from upshot_conformance.harness import CannotStartError, Harness

__all__ = ["MongoHarness", "MongoStandaloneHarness"]

_OWN_NAME: Final = "upshot-conformance-harness"
_SYSTEM: Final = frozenset({"admin", "config", "local"})
_SCHEMES: Final = {"mongo": "mongodb", "mongo+srv": "mongodb+srv"}


class MongoHarness(Harness):
    """A server object is a document, named `database/collection/id`; it belongs to a namespace if
    its bytes hold the namespace anywhere.
    """

    scheme: ClassVar[str] = "mongodb"
    _replica_set: ClassVar[bool] = True

    def __init__(self, url: Url) -> None:
        super().__init__(url)
        import pymongo  # here, so that a missing driver is reported by the backend, once
        from bson.raw_bson import RawBSONDocument

        # `Any`: pymongo's hints of raw documents say less than is used here.
        self._server: Any = pymongo.MongoClient(
            url.driver_url(_SCHEMES.get(url.scheme, url.scheme)),
            document_class=RawBSONDocument,
            appname=_OWN_NAME,
            serverSelectionTimeoutMS=10_000,
            socketTimeoutMS=10_000,
        )

    @classmethod
    @contextlib.contextmanager
    def start(cls) -> Generator[str]:
        """Start a private MongoDB: a replica set of one member."""
        from upshot_conformance.servers import MongoDBServer, ServerError  # only who starts one

        server = MongoDBServer(replica_set=cls._replica_set)
        try:
            server.start()
        except ServerError as exc:
            raise CannotStartError(str(exc)) from exc
        try:
            yield server.url
        finally:
            server.stop()

    def raw_objects(self, namespace: str) -> set[str]:
        return {name for name, document in self._documents() if _mentions(document, namespace)}

    def purge(self, namespace: str) -> None:
        for collection in self._collections():
            ids = [
                document["_id"] for document in collection.find() if _mentions(document, namespace)
            ]
            if ids:
                collection.delete_many({"_id": {"$in": ids}})

    def server_version(self) -> str:
        return f"MongoDB {self._server.server_info()['version']}"

    def read_raw(self, name: str) -> bytes:
        return b"".join(bytes(found.raw) for each, found in self._documents() if each == name)

    def ttl(self, name: str) -> float | None:
        stages = [
            {"$match": {"expires_at": {"$type": "date"}}},
            {"$project": {"left": {"$subtract": ["$expires_at", "$$NOW"]}}},
        ]
        for collection in self._collections():
            for document in collection.aggregate(stages):
                if _name(collection, document) == name:
                    return float(document["left"]) / 1000
        return None

    def subscriptions(self, namespace: str) -> set[str]:
        return set()  # a change stream is of a collection: the server knows no awaited keys

    def connections(self) -> int:
        """Count those of pymongo, the ones that watch over the server included."""
        operations = self._server.admin.aggregate(
            [
                {"$currentOp": {"allUsers": True, "idleConnections": True}},
                {"$match": {"clientMetadata.driver.name": {"$regex": "^PyMongo"}}},
                {"$match": {"appName": {"$ne": _OWN_NAME}}},
                {"$group": {"_id": "$connectionId"}},
            ]
        )
        return sum(1 for _ in operations)

    def close(self) -> None:
        self._server.close()

    def _documents(self) -> Iterator[tuple[str, Any]]:
        for collection in self._collections():
            for document in collection.find():
                yield _name(collection, document), document

    def _collections(self) -> Iterator[Any]:
        for database in self._server.list_database_names():
            if database not in _SYSTEM:
                for collection in self._server[database].list_collection_names():
                    yield self._server[database][collection]


class MongoStandaloneHarness(MongoHarness):
    """The same for a server that is in no replica set, and so has no change streams."""

    scheme: ClassVar[str] = "mongo-standalone"
    _replica_set: ClassVar[bool] = False


def _mentions(document: Any, namespace: str) -> bool:
    # Of a long answer, `raw` is a memoryview, in which one cannot look for text.
    return namespace.encode() in bytes(document.raw)


def _name(collection: Any, document: Any) -> str:
    return f"{collection.database.name}/{collection.name}/{document['_id']!r}"
