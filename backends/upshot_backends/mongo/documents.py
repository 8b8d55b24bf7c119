"""The documents of results: how they are stored, read, forgotten and heard of.

All times are the server's: `$$NOW` is the moment at which it began to run a command, in
milliseconds. No client's clock matters.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import bson
from bson.int64 import Int64
from bson.raw_bson import RawBSONDocument

from upshot.backend import StoredRecord
from upshot.states import NEVER
from upshot_backends.mongo.driver import Document

__all__ = [
    "ALIVE",
    "EXPIRES_AT",
    "INLINE",
    "IS_DEAD",
    "OVERHEAD",
    "REFUSED",
    "changes",
    "forget",
    "remove",
    "store",
]

EXPIRES_AT: Final = "expires_at"
"""The field with the moment from which a document counts as absent; without it, never."""

REFUSED: Final = 241
"""The server's code (ConversionFailure) for a record that does not apply."""

OVERHEAD: Final = 8192
"""Bytes that `store` adds to a body, at most: a key of 1 KiB twice, texts of 200 characters."""

INLINE: Final = 8192
"""Bytes of the longest body that travels in an event; a longer one is read by who waits for it."""

_LONGEST_EXPIRY: Final = 2 * 10**14
"""Milliseconds; about 6 300 years. Later than the year 9999, tools could not show the moment."""

_LONGEST_TEXT: Final = 200  # characters of a name or state beside the body, which has them whole

_LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)

IS_DEAD: Final[Document] = {
    "$and": [{"$eq": [{"$type": "$expires_at"}, "date"]}, {"$lte": ["$expires_at", "$$NOW"]}]
}
"""The expression that tells whether a document counts as absent."""

ALIVE: Final[Document] = {"$expr": {"$not": [IS_DEAD]}}
"""The part of a query that leaves out what counts as absent."""

# A conversion that fails is the one way in which a single update of a batch can say "no".
_REFUSAL: Final = RawBSONDocument(
    bson.encode({"$toInt": {"$concat": ["kept by barrier ", {"$toString": "$barrier"}]}})
)


def store(record: StoredRecord) -> Document:
    """Return the update that stores a record under the guard; it fails by `REFUSED` if refused.

    What is no record of ours (its barrier is no number) stands in nobody's way.
    """
    document = {
        "_id": record.key,
        "body": record.body,
        "barrier": record.barrier,
        "task_id": record.task_id,
        "name": _shortened(record.name),
        "state": _shortened(record.state),
    }
    computed = _computed(record.barrier == NEVER, _milliseconds(record.expires))
    replacement = {"$mergeObjects": [{"$literal": document}, computed]}
    return {
        "q": {"_id": record.key},
        "u": [{"$replaceWith": {"$cond": [_applies(record.rank), replacement, _REFUSAL]}}],
        "upsert": True,
    }


def forget(key: str) -> Document:
    """Return the update that makes a record absent, and tells those who wait for it.

    It is for the tellings' sake: nothing in the event of a deletion would say whether somebody
    forgot the record or it expired. And a key without a record has no deletion at all.
    """
    tombstone = {"forgotten": True, EXPIRES_AT: _LONG_AGO}
    return {"q": {"_id": key}, "u": tombstone, "upsert": True}


def remove(keys: Sequence[str], *, forgotten: bool) -> Document:
    """Return the deletion of documents, of those made by `forget` only if `forgotten`.

    So a record that is stored between the two stays.
    """
    query: Document = {"_id": {"$in": list(keys)}}
    if forgotten:
        query["forgotten"] = True
    return {"q": query, "limit": 0}


def changes() -> list[Document]:
    """Return the stages that leave of a change stream the ends of tasks and what was forgotten.

    An event comes out as `{"documentKey": {"_id": key}, "forgotten": True}`, or with the `body`
    if that is short. The server logs an update whole or as the fields that it changed, whichever
    is shorter. `ended_at` is always among them: it stands in terminal records only, and never
    stays the same.
    """
    updated = "updateDescription.updatedFields"
    body = {"$ifNull": ["$fullDocument.body", f"${updated}.body"]}
    is_short = {"$lte": [{"$binarySize": "$$body"}, INLINE]}
    is_binary = {"$eq": [{"$type": "$$body"}, "binData"]}
    short = {"$cond": [is_binary, {"$cond": [is_short, "$$body", "$$REMOVE"]}, "$$REMOVE"]}
    wanted: list[dict[str, Any]] = [
        {"fullDocument.ended_at": {"$exists": True}},
        {f"{updated}.ended_at": {"$exists": True}},
        {"fullDocument.forgotten": True},
    ]
    return [
        {"$match": {"operationType": {"$in": ["insert", "update", "replace"]}, "$or": wanted}},
        {
            "$project": {
                "documentKey._id": 1,
                "forgotten": "$fullDocument.forgotten",
                "body": {"$let": {"vars": {"body": body}, "in": short}},
            }
        },
    ]


# What is the same in many updates is encoded once.


@functools.lru_cache(maxsize=64)
def _applies(rank: int) -> RawBSONDocument:
    """Return the expression that tells whether a record of that rank applies."""
    is_foreign = {"$not": [{"$isNumber": "$barrier"}]}
    is_due = {"$lte": ["$barrier", rank]}
    return RawBSONDocument(bson.encode({"$or": [is_foreign, is_due, IS_DEAD]}))


@functools.lru_cache(maxsize=64)
def _computed(is_terminal: bool, milliseconds: int | None) -> RawBSONDocument:
    """Return the fields of a document that the server fills in."""
    computed: Document = {"stored_at": "$$NOW"}
    if is_terminal:
        computed["ended_at"] = "$$NOW"
    if milliseconds is not None:
        computed[EXPIRES_AT] = {"$add": ["$$NOW", Int64(milliseconds)]}
    return RawBSONDocument(bson.encode(computed))


def _milliseconds(seconds: float | None) -> int | None:
    """Return an expiry rounded up, and at least 1; None is for ever."""
    if seconds is None:
        return None
    return math.ceil(max(1.0, min(seconds * 1000, _LONGEST_EXPIRY)))


def _shortened(text: str) -> str:
    """Return the beginning of a text, with "?" for surrogates, which BSON does not know."""
    return text[:_LONGEST_TEXT].encode(errors="replace").decode()
