"""Looks into a MongoDB server through pymongo, as raw documents of whatever collections there are.

A sharded cluster is not tested: no `mongos` is among the files that `make services` installs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final

from upshot_conformance.harness import UnavailableError
from upshot_conformance.harnesses.private import PrivateHarness, PrivateService

__all__ = ["MongoHarness", "MongoStandaloneHarness"]

_OWN_NAME: Final = "upshot-conformance-harness"
_SYSTEM: Final = frozenset({"admin", "config", "local"})
_SCHEMES: Final = {"mongo": "mongodb", "mongo+srv": "mongodb+srv"}


class MongoHarness(PrivateHarness):
    """A server object is a document, named `database/collection/id`; it belongs to a namespace if
    its bytes hold the namespace anywhere.
    """

    scheme: ClassVar[str] = "mongodb"
    default_port: ClassVar[int] = 27017
    _replica_set: ClassVar[bool] = True

    @classmethod
    def make_service(cls) -> PrivateService:
        """Return a private MongoDB: a replica set of one member."""
        from upshot_conformance.servers import MongoDBServer  # only who starts one

        return MongoDBServer(replica_set=cls._replica_set)

    def connect(self) -> None:
        import pymongo  # here, so that a missing driver is reported by the backend, once
        from bson.raw_bson import RawBSONDocument

        # `Any`: pymongo's hints of raw documents say less than is used here.
        self._server: Any = pymongo.MongoClient(
            self.url.driver_url(_SCHEMES.get(self.url.scheme, self.url.scheme)),
            document_class=RawBSONDocument,
            appname=_OWN_NAME,
            serverSelectionTimeoutMS=10_000,
            socketTimeoutMS=10_000,
            # Otherwise it starts one more thread in ten seconds, in the midst of some test, which
            # would then be said to have left it behind.
            serverMonitoringMode="poll",
        )

    def addresses(self) -> Sequence[tuple[str, int]]:
        """Return those of the URL and those that the members of a set give themselves."""
        if self.url.scheme.endswith("+srv"):
            raise UnavailableError("behind a name of DNS's SRV records no proxy can be put")
        return list(dict.fromkeys([*super().addresses(), *self._members()]))

    def renaming(
        self, proxies: Mapping[tuple[str, int], tuple[str, int]]
    ) -> Callable[[bytes], bytes] | None:
        """Put the proxies' names into each `hello`: of the same length, because BSON counts."""
        names = [
            tuple(b"%b:%d" % (host.encode(), port) for host, port in (member, proxies[member]))
            for member in self._members()
        ]
        if any(len(old) != len(new) for old, new in names):
            raise UnavailableError("a proxy cannot pass for a member with a name of that length")

        def renamed(piece: bytes) -> bytes:
            for old, new in names:
                piece = piece.replace(old, new)
            return piece

        return renamed

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

    def _members(self) -> list[tuple[str, int]]:
        names: list[str] = self._server.admin.command("hello").get("hosts", [])
        split = (name.rpartition(":") for name in names)
        return [(host, int(port)) for host, _, port in split]

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
