"""The connections to one database, shared by all that one process does there."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bson.codec_options import CodecOptions, DatetimeConversion
from pymongo import ASCENDING, MongoClient
from pymongo.collection import Collection
from pymongo.command_cursor import CommandCursor
from pymongo.errors import InvalidOperation, PyMongoError
from pymongo.read_concern import ReadConcern

from upshot.url import Url
from upshot_backends.mongo.driver import Document, bounded, read_url, refusal

__all__ = ["MongoDatabase", "Stream"]

Stream = CommandCursor[Document]
"""An open change stream."""

_GOODBYE: Final = 0.4  # seconds for telling the server that this process leaves

# A foreign document must not spoil the reading of the others: no date is out of range, and text
# that is no UTF-8 is replaced.
_CODEC: Final[CodecOptions[Document]] = CodecOptions(
    document_class=dict,
    datetime_conversion=DatetimeConversion.DATETIME_MS,
    unicode_decode_error_handler="replace",
)


class _Client(MongoClient[Document]):
    """pymongo's client, which may be dropped without a word.

    It is dropped unclosed by a forked child, to which it does not belong, and by the end of the
    interpreter. pymongo would warn of that.
    """

    def __del__(self) -> None:
        """Do nothing."""


class MongoDatabase:
    """One MongoDB database and the collection in it; safe to use from any thread.

    pymongo's client is made by the first call. It keeps connections (100 at most, see its
    `maxPoolSize`) and, for each server, a thread that watches over it on a connection of its own.

    Every call belongs into a block of `bounded`, which gives it its time. Only the resolution of
    a host name is beyond that.

    Args:
        url: `mongodb://` or `mongodb+srv://`, with pymongo's own parameters. Of these,
            `retryReads`, `retryWrites`, `socketTimeoutMS` and `timeoutMS` have no effect: upshot
            retries and counts time by itself.

    Raises:
        UrlError: as `read_url` says.
    """

    def __init__(self, url: Url) -> None:
        self.settings = read_url(url)
        self._lock = threading.Lock()
        self._client: _Client | None = None
        self._closed = False

    def write(self, document: Document, *, lasting: bool) -> list[Document]:
        """Run one command that writes to the collection; return what went wrong in its parts.

        Args:
            document: the command without its write concern, and with the collection's name.
            lasting: return when a majority has it, unless the URL says otherwise.

        Raises:
            RefusedError: the write concern was not reached. What was written stays.
        """
        concern = self.settings.lasting if lasting else self.settings.passing
        answer = self._run(document | {"writeConcern": concern})
        if "writeConcernError" in answer:
            raise refusal(answer["writeConcernError"])
        errors: list[Document] = answer.get("writeErrors", [])
        return errors

    def read(
        self, query: Document, fields: Document, *, limit: int, in_order: bool = False
    ) -> list[Document]:
        """Return at most `limit` documents, `in_order` of their ids if so asked."""
        if limit == 1:
            return self._read_one(query, fields)
        cursor = self._collection().find(query, fields, limit=limit, batch_size=limit + 1)
        return list(cursor.sort("_id", ASCENDING) if in_order else cursor)

    def watch(self, stages: Sequence[Mapping[str, Any]], longest: float) -> Stream:
        """Open a change stream on the collection, which exists or not.

        Args:
            stages: what comes after `$changeStream`.
            longest: seconds that the server holds a request for events while there are none.
        """
        # pymongo's own change stream would resume by itself, and hide that anything happened.
        collection = self._collection().with_options(read_concern=ReadConcern("majority"))
        return collection.aggregate(
            [{"$changeStream": {}}, *stages], maxAwaitTimeMS=int(longest * 1000)
        )

    def ask(self, question: Document) -> Document:
        """Run one command that writes nothing, or that nothing lies under: `hello`, `drop`."""
        return self._run(question)

    def is_standalone(self) -> bool:
        """Tell whether the server was found to be in no replica set and no sharded cluster."""
        servers = self._opened().topology_description.server_descriptions().values()
        return any(server.server_type_name == "Standalone" for server in servers)

    def make_index(self, field: str) -> None:
        """Let the server remove documents once the moment in `field` has passed."""
        index = {"key": {field: 1}, "name": field, "expireAfterSeconds": 0}
        self._run({"createIndexes": self.settings.collection, "indexes": [index]})

    def close(self) -> None:
        """Close every connection; idempotent, raises nothing."""
        with self._lock:
            self._closed = True
            client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(PyMongoError), bounded(_GOODBYE):
                client.close()

    def _read_one(self, query: Document, fields: Document) -> list[Document]:
        """Do what a cursor would for one document, at two thirds of its cost."""
        database = self._opened()[self.settings.database]
        command: Document = {
            "find": self.settings.collection,
            "filter": query,
            "projection": fields,
            "limit": 1,
            "singleBatch": True,
        }
        if concern := database.read_concern.document:
            command["readConcern"] = concern
        answer: Document = database.command(command, codec_options=_CODEC)
        found: list[Document] = answer["cursor"]["firstBatch"]
        return found

    def _run(self, document: Document) -> Document:
        return self._opened()[self.settings.database].command(document)

    def _collection(self) -> Collection[Document]:
        database = self._opened()[self.settings.database]
        return database.get_collection(self.settings.collection, codec_options=_CODEC)

    def _opened(self) -> _Client:
        client = self._client
        if client is not None:
            return client
        with self._lock:
            if self._closed:
                raise InvalidOperation("this client is closed")
            if self._client is None:
                self._client = _Client(self.settings.address, **self.settings.keywords)
            return self._client
