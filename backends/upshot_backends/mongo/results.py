"""Results on a MongoDB server.

Service: MongoDB 4.4 or newer, as a replica set or sharded cluster for notifications; a standalone
server has none, and is polled. Tested on 6.0, on a replica set of one member and on a standalone
server. What it cannot do: roll back a batch; read from secondaries, which may not have yet what
was stored; store records beyond 15 MiB.

Layout: one collection, `results` in the database of the URL's path, one document per record:

    _id         the key
    body        the encoded record
    barrier     the rank that a later record must reach
    task_id, name, state
                repeated from the record for people's queries; names are cut after 200 characters
    stored_at   when it was stored, by the server's clock
    ended_at    the same, in terminal records only: what waiters' change streams look for
    expires_at  from when on it counts as absent; missing if it is kept for ever

A document in which `forgotten` is true tells waiters that a record was forgotten, and is removed in
the next step. Documents that expired are removed by the index `expires_at`, which the server looks
through once a minute. No reader sees them meanwhile.

One change stream per waiting process hears of every terminal record in the collection, with its
body if that has at most 8 KiB, and picks the awaited ones. A user who may not open one polls.
"""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar, Final

from pymongo.errors import OperationFailure

from upshot import clock
from upshot.backend import Backend, Capabilities, StoredRecord
from upshot.listening import Listener
from upshot.states import NEVER
from upshot.url import Url
from upshot_backends.mongo import documents
from upshot_backends.mongo.connection import MongoDatabase
from upshot_backends.mongo.driver import (
    DRIVER_ERRORS,
    Document,
    RefusedError,
    bounded,
    refusal,
)
from upshot_backends.mongo.listener import MongoListener

if TYPE_CHECKING:
    from upshot.finding import Finding

__all__ = ["MongoBackend"]

_LARGEST: Final = 15 * 2**20  # bytes of a record; a document has at most 16 MiB
_PART: Final = 16 * 2**20  # bytes of a command, as pymongo takes it
_PAGE: Final = 1000  # records in one command of `store`, keys per round trip of a scan
_INDEX_LOOK: Final = 3600.0  # seconds until the index is made again, if somebody dropped it
_NO_COLLECTION: Final = 26  # NamespaceNotFound
_NO_STREAMS: Final = (
    13,  # Unauthorized: the user has no right to change streams
    40573,  # a standalone server
)


class MongoBackend(Backend):
    """`mongodb://user:password@h1:27017,h2:27017/database?replicaSet=rs0`

    `mongodb+srv://host/database` asks the DNS for the servers; `mongo://` means `mongodb://`.
    The database is `upshot` if the path is empty. The URL's one option of ours:

        upshot_collection  the collection's name (default "results")

    The others are pymongo's (`authSource`, `tls`, `w`, `readConcernLevel`, …), see
    `MongoDatabase`. Without `w`, terminal records are stored when a majority of the replica set
    has them, and progress when the primary has it: a new primary may not know it. A `w` is for
    both. `w=0` and a `readPreference` other than `primary` are refused.
    """

    capabilities = Capabilities(
        shared=True,
        reread=True,
        intermediate=True,
        atomic=True,
        push=True,
        persistent=True,
        transactional=False,
        batch=True,
        scan=True,
        streams=True,
        visibility=0.0,
        poll_interval=0.05,
        expiry_resolution=0.001,
        max_record_bytes=_LARGEST,
        max_key_bytes=1024,
        text_keys=True,
    )
    driver_errors: ClassVar = DRIVER_ERRORS

    def __init__(self, url: Url) -> None:
        self._url = url
        self._database = MongoDatabase(url)
        self._collection = self._database.settings.collection
        self._has_met = False
        self._next_index = clock.monotonic()

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        applied: list[bool] = []
        with bounded(timeout):
            self._prepare()
            for part in _parts(records):
                command = self._updates([documents.store(record) for record in part])
                lasting = any(record.barrier == NEVER for record in part)
                refused: set[int] = set()
                for error in self._database.write(command, lasting=lasting):
                    if error["code"] != documents.REFUSED:
                        raise refusal(error)
                    refused.add(error["index"])
                applied += [index not in refused for index in range(len(part))]
        return applied

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | None]:
        if not keys:
            return []
        query = {"_id": keys[0] if len(keys) == 1 else {"$in": list(keys)}, **documents.ALIVE}
        with bounded(timeout):
            found = self._database.read(query, _BODY, limit=len(keys))
            self._meet()
        bodies = {document["_id"]: _body(document.get("body")) for document in found}
        return [bodies.get(key) for key in keys]

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        with bounded(timeout):
            if tell := self.capabilities.push:
                self._prepare()
                command = self._updates([documents.forget(key) for key in dict.fromkeys(keys)])
                self._check(self._database.write(command, lasting=False))
            deletion = documents.remove(keys, forgotten=tell)
            command = {"delete": self._collection, "deletes": [deletion]}
            self._check(self._database.write(command, lasting=True))
            self._meet()

    def close(self) -> None:
        self._database.close()

    def listen(self, timeout: float) -> Listener | None:
        if not self.capabilities.push:
            return None
        try:
            return MongoListener(self._database, timeout)
        except RefusedError as exc:
            if exc.code not in _NO_STREAMS:
                raise
            self._narrow()
            return None

    def scan(self, prefix: str, timeout: float) -> Iterator[str]:
        query = {"_id": {"$gte": prefix}}
        while True:
            with bounded(timeout):
                page = self._database.read(query, _LIFE, limit=_PAGE, in_order=True)
            for document in page:
                key = document["_id"]
                if not key.startswith(prefix):  # in order: all that do were before it
                    return
                if not document["dead"]:
                    yield key
            if len(page) < _PAGE:
                return
            query = {"_id": {"$gt": page[-1]["_id"]}}

    def diagnose(self, timeout: float) -> Sequence[Finding]:
        """See `upshot.backend.Diagnosing`."""
        from upshot_backends.mongo import diagnosis  # which nobody else needs

        return diagnosis.diagnose(self._database, timeout)

    def advise(self, said: str) -> str:
        """See `upshot.backend.Diagnosing`."""
        from upshot_backends.mongo import diagnosis  # as above

        return diagnosis.advise(said)

    @contextlib.contextmanager
    def rehearsal(self, timeout: float) -> Generator[Url | None]:
        """See `upshot.backend.Rehearsing`: another collection, if there is none yet."""
        database, name = self._database, self._collection
        question: Document = {"listCollections": 1, "filter": {"name": name}, "nameOnly": True}
        with bounded(timeout):
            found = database.ask(question | {"authorizedCollections": True})
        if found["cursor"]["firstBatch"]:
            yield None
            return
        trial = f"upshot_doctor_{secrets.token_hex(8)}"
        try:
            yield self._url.varied(collection=trial)
        finally:
            with bounded(timeout):
                self._remove(trial)

    # -- below the surface --------------------------------------------------------------------

    def _remove(self, collection: str) -> None:
        try:
            self._database.ask({"drop": collection})
        except OperationFailure as exc:
            if exc.code != _NO_COLLECTION:
                raise

    def _updates(self, updates: Sequence[Document]) -> Document:
        return {"update": self._collection, "updates": updates, "ordered": False}

    def _check(self, errors: Sequence[Document]) -> None:
        for error in errors:
            raise refusal(error)

    def _prepare(self) -> None:
        """See to it, before something is written, that it will be removed when it has expired."""
        if clock.monotonic() >= self._next_index:
            self._database.make_index(documents.EXPIRES_AT)
            self._next_index = clock.monotonic() + _INDEX_LOOK
            self._meet()

    def _meet(self) -> None:
        """After the first answer, find out what kind of server it is."""
        if not self._has_met:
            if self._database.is_standalone():
                self._narrow()
            self._has_met = True

    def _narrow(self) -> None:
        self.capabilities = dataclasses.replace(self.capabilities, push=False)


_LIFE: Final[Document] = {"dead": documents.IS_DEAD}
_BODY: Final[Document] = {"body": 1}


def _body(body: object) -> bytes:
    """Return the body, b"", which is no record, for what is foreign."""
    return body if isinstance(body, bytes) else b""


def _parts(records: Sequence[StoredRecord]) -> Iterator[list[StoredRecord]]:
    """Cut a batch, in order, into what fits into one command, each key at most once.

    MongoDB does not promise an order within a command that goes on after a refusal.
    """
    part: list[StoredRecord] = []
    keys: set[str] = set()
    size = 0
    for record in records:
        added = len(record.body) + documents.OVERHEAD
        if part and (record.key in keys or size + added > _PART or len(part) == _PAGE):
            yield part
            part, size = [], 0
            keys.clear()
        part.append(record)
        keys.add(record.key)
        size += added
    if part:
        yield part
