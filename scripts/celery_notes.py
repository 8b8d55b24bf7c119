"""What `docs/celery-backends.md` says beside the marks of its matrix.

`NOT_MEASURED` has the clauses that say nothing about a Celery backend under upshot, and why.
`NOTES` has for each clause that a Celery backend breaks what was seen. A number is an issue or pull
request of https://github.com/celery/celery that is about the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

__all__ = ["LABELS", "NOTES", "NOT_MEASURED", "Note", "not_measured", "notes_on"]

REDIS: Final = "celery+redis"
RPC: Final = "celery+rpc"
MONGODB: Final = "celery+mongodb"
SQLITE: Final = "celery+db+sqlite"
MEMCACHED: Final = "celery+cache+memcached"
LABELS: Final = (REDIS, RPC, MONGODB, SQLITE, MEMCACHED)
"""The backends, in the order of the page."""

_POLLING: Final = (MONGODB, SQLITE, MEMCACHED)
_KEY_VALUE: Final = (REDIS, MEMCACHED)
_STORES: Final = (REDIS, *_POLLING)


class Note(NamedTuple):
    """A sentence about a clause on some backends.

    Attributes:
        labels: the backends.
        text: what was seen there, and what Celery promises.
        issues: numbers of Celery's issues.
    """

    labels: tuple[str, ...]
    text: str
    issues: tuple[int, ...] = ()


NOT_MEASURED: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    **dict.fromkeys(
        ["ID-2"], ((MEMCACHED,), "ids that memcached takes for no key reach it hashed by upshot")
    ),
    **dict.fromkeys(["ID-3"], (LABELS, "ids are checked by upshot, before Celery sees them")),
    **dict.fromkeys(
        ["RS-1", "RS-2", "RS-3", "RS-4", "RS-5", "RS-7", "FL-1", "FL-2", "FL-3", "FL-4", "FL-5",
         "FL-6", "FL-7", "FT-4", "IS-3", "SE-1", "SE-2"],
        (LABELS, "values and exceptions are written and read by upshot; Celery gets bytes"),
    ),
    **dict.fromkeys(
        ["WT-2", "WT-8", "WT-9", "WT-10"], (LABELS, "the wait itself is that of upshot")
    ),
    **dict.fromkeys(["WT-1", "WT-3"], (_POLLING, "Celery polls, and here upshot does")),
    **dict.fromkeys(
        ["RS-6", "RD-5"], ((RPC,), "reading takes a result out of its queue, as it must")
    ),
    **dict.fromkeys(
        ["RL-6"],
        ((SQLITE,), "the count of objects goes up and down by thousands, and does not grow"),
    ),
    **dict.fromkeys(
        ["FT-1", "FT-2", "FT-3", "FT-5"],
        ((RPC,), "once there was a `get()`, looks do not see what comes, as the first table shows"),
    ),
    **dict.fromkeys(["RL-1"], ((RPC,), "one queue brings all results of a client")),
    **dict.fromkeys(["RD-4"], (LABELS, "upshot makes a new client after a fork")),
    **dict.fromkeys(["BT-1", "BT-3"], (LABELS, "batches are made by the adapter, one by one")),
    **dict.fromkeys(
        ["ST-4", "ST-5"], (LABELS, "no safety against concurrent writers is declared")
    ),
    **dict.fromkeys(["BT-2", "WT-5"], (LABELS, "no batches are declared")),
    **dict.fromkeys(
        ["CP-1", "CP-2", "CP-3"], (LABELS, "what is declared is declared by the adapter")
    ),
}  # fmt: skip
"""By clause: on which backends it says nothing about Celery, and why."""

NOTES: Final[Mapping[str, Sequence[Note]]] = {
    "ID-2": (
        Note((RPC,), "each id has its own result; one that was forgotten before it was fetched "
             "comes all the same, as RL-2 says"),
    ),
    "ST-2": (
        Note(_STORES, "SUCCESS stays, whatever comes later; an unfinished state replaces FAILURE "
             "and REVOKED. Celery promises no more", (6090,)),
        Note((RPC,), "each state is a message, and the last one that came is the state", (10459,)),
    ),
    "ST-3": (
        Note(_STORES, "SUCCESS stays; another end replaces FAILURE and REVOKED, so that a task "
             "which is run again after a failure can succeed. That the same result was stored "
             "again cannot be told", (6090,)),
        Note((RPC,), "each end is a message; which of two a reader gets depends on when it asks"),
    ),
    "ST-6": (
        Note(_STORES, "a revocation replaces a failure, and what comes after a revocation replaces "
             "it: in Celery the worker sees to it that a revoked task does not run"),
        Note((RPC,), "a revocation is a message like others"),
    ),
    "ST-8": (
        Note(_STORES, "where several clients store attempts of one task at a time, an earlier "
             "one may replace a later one: no write is compared with what is there"),
        Note((RPC,), "the same, in the order in which messages come"),
    ),
    "WT-6": (
        Note((RPC,), "a wait that is given up consumes nothing; a result that one handle got is "
             "not there for another, as Celery's documentation says", (9105,)),
    ),
    "WT-7": (
        Note((RPC,), "who asks after a second end gets that one: a consequence of ST-3"),
    ),
    "RL-1": (
        Note((REDIS,), "a wait that ends with its result gives its subscription back; one that "
             "timed out or was left keeps it until the task ends or the client goes", (5320,)),
    ),
    "RL-2": (
        Note((RPC,), "`forget()` clears what the client has; a result that is still in the queue "
             "comes later. Celery says that there is nothing to delete", (10459,)),
    ),
    "RL-3": (
        Note((RPC,), "it raises nothing, and leaves what RL-2 says"),
    ),
    "RL-5": (
        Note((REDIS, MEMCACHED), "`app.close()` leaves the backend's connections open until the "
             "next garbage collection", (4465, 6819)),
        Note((MONGODB,), "`app.close()` leaves pymongo's client, with its connections and its "
             "threads, to the next garbage collection", (4465,)),
    ),
    "RL-6": (
        Note((REDIS,), "a wait that timed out leaves a handle and a subscription behind", (5320,)),
        Note((RPC,), "a wait that timed out leaves a handle behind", (5344,)),
    ),
    "RL-7": (
        Note((MEMCACHED,), "Python warns of open sockets where it is asked to: nothing closes "
             "them at the end"),
    ),
    "EX-2": (
        Note(_KEY_VALUE, "what replaces a failure brings its own time to live: a consequence of "
             "ST-2 and ST-3"),
    ),
    "EX-3": (
        Note((MEMCACHED,), "with `result_expires` over 30 days a result is gone at once: memcached "
             "takes the number for a date. Celery warns of this for chords"),
    ),
}  # fmt: skip
"""By clause: what was seen where it is broken."""


def not_measured(clause_id: str, label: str) -> str:
    """Return why a clause says nothing about a backend; "" if it does."""
    labels, reason = NOT_MEASURED.get(clause_id, ((), ""))
    return reason if label in labels else ""


def notes_on(clause_id: str, label: str) -> list[Note]:
    """Return what is known about a clause that a backend breaks."""
    return [note for note in NOTES.get(clause_id, ()) if label in note.labels]
