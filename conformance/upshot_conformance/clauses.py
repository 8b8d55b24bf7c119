"""The clauses of the result-backend contract, and the mark that ties a test to them.

The words MUST, SHOULD and MAY are used as in RFC 2119. A *waiter* is anybody blocked on an id, the
*jitter* is measured when the suite starts, and *server objects* are keys, rows, queues, channels
and whatever else a service keeps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import pytest

__all__ = ["CLAUSES", "CONTRACT", "Clause", "Level", "clause"]

CONTRACT: Final = "1.0"
"""The version of the contract that this suite tests."""

Level = Literal["core", "extended", "provisional"]


@dataclass(frozen=True, slots=True)
class Clause:
    """One sentence that a backend keeps.

    Attributes:
        id: group and number, such as `"ST-2"`; never reused.
        level: `core` binds every backend, `extended` those that declare `gate`, `provisional`
            nobody yet: it is reported and never turns a run red.
        gate: the field of `Capabilities` that switches it on; "" for core clauses.
        tested: False while no test of this version checks it.
        text: what is demanded.
    """

    id: str
    level: Level
    gate: str
    tested: bool
    text: str


# group and number, capability that gates it ("" = core), sentence
_TESTED: Final = (
    ("ID-1", "", ("Asking for, waiting for or forgetting an id that nobody stored MUST raise no "
     "unknown-id error: its state is PENDING and it has no result.")),
    ("ID-2", "", "Two different ids MUST have two different records, compared byte by byte."),
    ("ID-3", "", ("An id that is not text of 1 to 255 bytes without control characters or "
     "surrogates MUST be refused with InvalidTaskIdError before any I/O, and never shortened.")),
    ("ID-4", "", "Reading and waiting MUST NOT create a server object."),
    ("ST-1", "", ("A stored state MUST be returned as it was stored; a state that the contract "
     "does not name is not terminal.")),
    ("ST-2", "", ("A record that is not terminal MUST change nothing about a terminal one: neither "
     "state nor payload, dates or expiry.")),
    ("ST-3", "", ("The first terminal record wins: later ones, the same one included, MUST change "
     "nothing and report that they were not applied.")),
    ("ST-4", "atomic", ("The first terminal record MUST win among concurrent writers too, and "
     "every reader MUST see the same winner.")),
    ("ST-5", "atomic", ("A record of an older attempt MUST NOT replace one of a newer attempt; "
     "RETRY, STARTED and an end of the next attempt follow each other.")),
    ("ST-6", "", ("A revocation MUST NOT change a task that has ended, and an end after a "
     "revocation MUST be ignored; when they race, all readers see one winner.")),
    ("ST-7", "", "State and payload MUST change together: no reader sees one without the other."),
    ("ST-8", "", ("A client MUST read what it wrote, MUST NOT see a task come back from a terminal "
     "state, and MUST see others' finished writes within the declared visibility.")),
    ("RS-1", "", ("None, bool, int, float, str, list and dict MUST come back equal and of the same "
     "types, nested to a depth of 100, with dict keys in their order.")),
    ("RS-2", "", ("None, False, 0, an empty text, list and dict are results: each MUST be told "
     "apart from having no result, on every way to read one.")),
    ("RS-3", "", ("Text of all Unicode scalar values MUST come back as it was; a lone surrogate "
     "comes back or is refused when it is stored.")),
    ("RS-4", "", ("Integers beyond 64 bits and finite floats MUST come back exactly; NaN and "
     "infinities come back or are refused when stored, and never become None.")),
    ("RS-5", "", "Bytes MUST come back as bytes."),
    ("RS-6", "", ("A record as long as the declared maximum, which MUST be at least 64 KiB, MUST "
     "come back whole; a longer one MUST be refused with PayloadTooLargeError.")),
    ("RS-7", "", ("A value that cannot be encoded MUST be refused with a typed error that leaves "
     "the record as it was; a stored value MUST share nothing with the caller's object.")),
    ("FL-1", "", ("A failure MUST keep its exception's module, qualified name, arguments or their "
     "repr, and message.")),
    ("FL-2", "", ("The traceback text MUST be kept whole up to 256 KiB; beyond that its head and "
     "its tail MUST be kept with a mark between them.")),
    ("FL-3", "", "Cause, context, the members of a group and notes MUST be kept with a failure."),
    ("FL-4", "", ("A reader that lacks the exception's class MUST get RemoteError with the "
     "original's name and text; stored data MUST NOT make it import anything.")),
    ("FL-5", "", ("An exception that cannot be pickled, rebuilt or printed, or that is no "
     "Exception, MUST still be recorded as FAILURE and wake its waiters.")),
    ("FL-6", "", "Reading a failure MUST raise each time, with an equal and fresh exception."),
    ("FL-7", "", "Recording a failure MUST NOT keep the failing frame's locals alive."),
    ("RD-1", "reread", "A result MUST be readable any number of times, in any order of ids."),
    ("RD-2", "", "Threads that share one client MUST each get their own answers."),
    ("RD-3", "shared", ("Another process that has the URL and the id MUST be able to read the "
     "result; a pickled handle MUST hold no connection and no password.")),
    ("RD-4", "", ("After a fork the child MUST work on connections of its own or raise, and the "
     "parent MUST NOT notice.")),
    ("RD-5", "", "Reading MUST change nothing: neither record nor expiry."),
    ("RL-1", "", ("A wait MUST give back its waiter slot and its subscription when it returns, "
     "times out, fails or is cancelled.")),
    ("RL-2", "", ("Forgetting MUST remove the record and every server object beside it; every "
     "client then sees PENDING.")),
    ("RL-3", "", ("Forgetting MUST be idempotent and succeed for ids that are unknown, not ended, "
     "forgotten or expired.")),
    ("RL-4", "", ("A wait for an id that is forgotten meanwhile MUST end with "
     "ResultForgottenError or by its own timeout, never later and never with old data.")),
    ("RL-5", "", ("Closing MUST be idempotent, give back sockets, threads and descriptors, and end "
     "waits with ServiceClosedError, which every later call raises too.")),
    ("RL-6", "", ("Storing, waiting and forgetting without end MUST NOT accumulate descriptors, "
     "threads, server objects or entries of the client.")),
    ("RL-7", "", ("Handles and clients that are dropped, also when the interpreter exits, MUST do "
     "so quickly, without I/O and without an error.")),
    ("RL-8", "expiry_resolution", ("Results that nobody reads MUST be bounded: by default every "
     "server object expires.")),
)  # fmt: skip

_NOT_YET_TESTED: Final = (
    ("WT-1", "", ("A waiter MUST return within 100 ms and the jitter of the write if the backend "
     "pushes, otherwise within the declared poll interval and the jitter.")),
    ("WT-2", "", ("A timeout is in seconds on a monotonic clock: never early, late by at most 10 "
     "per cent, the jitter or the poll interval; 0 looks once, None waits for ever, and a "
     "negative one is a ValueError.")),
    ("WT-3", "", "Each of 64 and more waiters on one id MUST wake within the bound of WT-1."),
    ("WT-4", "", ("No wake-up may be lost: not before the submit, after the end, or between the "
     "look and the subscription.")),
    ("WT-5", "batch", ("One wait on 10 000 ids MUST yield each once, with a bounded number of "
     "connections and in linear time.")),
    ("WT-6", "", "A wait that times out MUST consume nothing: waiting again succeeds."),
    ("WT-7", "", ("Only a terminal state MUST end a wait; repeated, foreign and unreadable "
     "notifications do no harm; a callback runs once.")),
    ("WT-8", "", "A cancelled wait MUST end within the jitter, propagate, and release all."),
    ("WT-9", "", ("Coroutines MUST NOT block the event loop for more than 50 ms; the blocking "
     "methods MUST NOT deadlock under a running loop.")),
    ("WT-10", "", "Under steady traffic of other threads every finished wait MUST return."),
    ("EX-1", "expiry_resolution", ("A record MUST live as long as it was given, and be gone for "
     "every way of reading once the declared resolution has passed after that.")),
    ("EX-2", "expiry_resolution", ("Reads, writes that are not applied and redeliveries MUST NOT "
     "extend an expiry.")),
    ("EX-3", "expiry_resolution", ("Any number of seconds above 0, fractions and 31 days included, "
     "MUST be kept to; 0 and less MUST be refused; None keeps for ever.")),
    ("EX-4", "expiry_resolution", "An expired id MUST be like an unknown one, also for waiters."),
    ("BT-1", "", ("A batch read MUST return one item per requested id, in order, repetitions and "
     "unknown ids included, and nothing for nothing.")),
    ("BT-2", "batch", "A batch of 10 000 ids MUST take a bounded number of round trips."),
    ("BT-3", "", ("A batch MUST be stored in order: all of it or nothing if transactional, "
     "otherwise with one answer per item.")),
    ("FT-1", "", ("A wait through a restart of the service or a cut connection MUST end by its "
     "deadline, and the client MUST work again afterwards.")),
    ("FT-2", "", "A result stored while notifications were cut off MUST be found afterwards."),
    ("FT-3", "", "A store MUST confirm or raise; what was confirmed MUST NOT disappear."),
    ("FT-4", "", "Bytes that are no record MUST raise CorruptRecordError for their id alone."),
    ("FT-5", "", "Against a slow service every call MUST keep its timeout."),
    ("IS-1", "", "Two namespaces on one service MUST NOT see, wake, forget or purge each other."),
    ("IS-2", "", ("Every server object MUST lie inside its namespace, and a purge MUST touch "
     "nothing outside.")),
    ("IS-3", "", ("Clients of different versions or serializers in one namespace MUST get typed "
     "errors.")),
    ("SE-1", "", "Reading a record MUST NOT import, call or unpickle what the data names."),
    ("SE-2", "", "Limits on what is read MUST hold before memory is taken."),
    ("SE-3", "", "Passwords MUST NOT appear in a repr, log, error or report."),
    ("CP-1", "", ("Capabilities and contract version MUST be readable without a connection; "
     "connecting may only narrow them.")),
    ("CP-2", "", "Using what is not declared MUST raise UnsupportedError at once."),
    ("CP-3", "", "What is declared MUST be true; what works undeclared is reported."),
)  # fmt: skip


def _clauses() -> Iterator[Clause]:
    for rows, tested in ((_TESTED, True), (_NOT_YET_TESTED, False)):
        for clause_id, gate, text in rows:
            yield Clause(clause_id, "extended" if gate else "core", gate, tested, text)


CLAUSES: Final[dict[str, Clause]] = {clause.id: clause for clause in _clauses()}
"""Every clause by its id."""


def clause(*ids: str) -> pytest.MarkDecorator:
    """Mark a test as a check of these clauses.

    Raises:
        LookupError: an id is not in the registry, or is registered as not tested.
    """
    for clause_id in ids:
        if clause_id not in CLAUSES or not CLAUSES[clause_id].tested:
            raise LookupError(f"{clause_id!r} is not a clause that clauses.py lists as tested")
    return pytest.mark.clause(*ids)
