"""What `docs/celery-backends.md` says beside the marks of its matrix.

`NOT_MEASURED` has the clauses that say nothing about a Celery backend under upshot, and why.
`NOTES` has for each clause that a Celery backend breaks what was seen. A number is an issue or pull
request of https://github.com/celery/celery that is about the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

__all__ = ["LABELS", "NOTES", "NOT_MEASURED", "Note", "Silence", "not_measured", "notes_on"]

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


class Silence(NamedTuple):
    """Clauses that say nothing about Celery on some backends.

    Attributes:
        clauses: their ids.
        labels: the backends.
        text: why.
    """

    clauses: tuple[str, ...]
    labels: tuple[str, ...]
    text: str


NOT_MEASURED: Final = (
    Silence(("ID-2",), (MEMCACHED,), "ids that memcached takes for no key arrive hashed by upshot"),
    Silence(("ID-2", "RL-3"), (RPC,), "what was forgotten before it was fetched comes all the "
            "same, as RL-2 says: their tests end there, and so tell no more"),
    Silence(("ID-3",), LABELS, "ids are checked by upshot, before Celery sees them"),
    Silence(("ST-4", "ST-5"), LABELS, "no safety against concurrent writers is declared"),
    Silence(
        ("RS-1", "RS-2", "RS-3", "RS-4", "RS-5", "RS-7", "FL-1", "FL-2", "FL-3", "FL-4", "FL-5",
         "FL-6", "FL-7", "FT-4", "IS-3", "SE-1", "SE-2", "RS-8", "SE-4", "SE-5", "SE-6"),
        LABELS, "values and exceptions are written and read by upshot; Celery gets bytes",
    ),
    Silence(("RS-6", "RD-5"), (RPC,), "reading takes a result out of its queue, as it must"),
    Silence(("RD-5",), (MONGODB,), "its test ends with what RL-5 says, and so tells no more"),
    Silence(("FT-2",), (MONGODB,), "its test of many waits ends with what FT-5 says, and so tells "
            "no more; in the others what was stored is found"),
    Silence(("WT-1", "WT-3"), _POLLING, "Celery polls, and here upshot does"),
    Silence(("WT-7",), (RPC,), "a second end comes all the same, as ST-3 says: one test ends "
            "there, and the others pass"),
    Silence(("WT-2", "WT-8", "WT-9", "WT-10"), LABELS, "the wait itself is that of upshot"),
    Silence(("WT-5", "BT-2"), LABELS, "no batches are declared"),
    Silence(("RD-4",), LABELS, "upshot makes a new client after a fork"),
    Silence(("RL-1",), (RPC,), "one queue brings all results of a client"),
    Silence(("RL-5", "IS-2"), (RPC,), "connections and queues of RabbitMQ do not say whose they "
            "are, and reply queues outlive their clients"),
    Silence(("RL-6",), (SQLITE,), "the count of objects goes up and down by thousands, and does "
            "not grow"),
    Silence(("BT-1", "BT-3"), LABELS, "batches are made by the adapter, one by one"),
    Silence(("FT-1", "FT-2", "FT-3", "FT-5"), (RPC,), "once there was a `get()`, looks do not see "
            "what comes, as the table above shows"),
    Silence(("SM-1", "SM-2", "SM-3", "SM-4", "SM-5", "SM-6", "SM-7", "KY-1", "KY-2", "KY-3",
             "KY-4"), LABELS, "Celery has no streams and no idempotency keys"),
    Silence(("CP-1", "CP-2", "CP-3"), LABELS, "what is declared is declared by the adapter"),
)  # fmt: skip
"""What says nothing about a Celery backend under upshot, and why."""

NOTES: Final[Mapping[str, Sequence[Note]]] = {
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
        Note((RPC,), "each state is a message, and who looks may see the one before the last"),
    ),
    "WT-6": (
        Note((RPC,), "a wait that is given up consumes nothing; a result that one handle got is "
             "not there for another, as Celery's documentation says", (9105,)),
    ),
    "RL-1": (
        Note((REDIS,), "a wait that ends with its result gives its subscription back; one that "
             "timed out or was left keeps it until the task ends or the client goes", (5320,)),
    ),
    "RL-2": (
        Note((RPC,), "`forget()` clears what the client has; a result that is still in the queue "
             "comes later. Celery says that there is nothing to delete", (10459,)),
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
        Note((MEMCACHED, MONGODB), "Python, or pymongo, warns of connections that nobody has "
             "closed, where it is asked to warn: Celery closes none at the end"),
    ),
    "EX-2": (
        Note(_KEY_VALUE, "what replaces a failure brings its own time to live: a consequence of "
             "ST-2 and ST-3"),
    ),
    "EX-3": (
        Note((MEMCACHED,), "with `result_expires` over 30 days a result is gone at once: memcached "
             "takes the number for a date. Celery warns of this for chords"),
    ),
    "FT-1": (
        Note((MONGODB,), "the client works again afterwards; while nothing answers, a wait ends as "
             "late as FT-5 says"),
    ),
    "FT-5": (
        Note((MONGODB,), "a call lasts the 5 s that are set (`timeoutMS`) in a thread that has "
             "used the backend before; each that has not makes an index first, behind a lock of "
             "[kombu's](https://github.com/celery/kombu/pull/1811) that all the process shares, "
             "and so one thread waits for the other, as the table above shows"),
    ),
}  # fmt: skip
"""By clause: what was seen where it is broken."""


def not_measured(clause_id: str, label: str) -> str:
    """Return why a clause says nothing about a backend; "" if it does."""
    told = (
        each.text for each in NOT_MEASURED if clause_id in each.clauses and label in each.labels
    )
    return next(told, "")


def notes_on(clause_id: str, label: str) -> list[Note]:
    """Return what is known about a clause that a backend breaks."""
    return [note for note in NOTES.get(clause_id, ()) if label in note.labels]
