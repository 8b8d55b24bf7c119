"""The contract of result backends: every clause, and why it is one.

The words MUST, SHOULD and MAY are used as in RFC 2119. `CONTRACT.md` beside this package is made
from this file and says what the other words mean.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

__all__ = ["CONTRACT", "GROUPS", "ROWS", "Level", "Row"]

CONTRACT: Final = "1.0"
"""The version of the contract that this suite tests."""

Level = Literal["core", "extended", "provisional"]


class Row(NamedTuple):
    """One clause, as it is written down here.

    Attributes:
        id: group and number, such as `"ST-2"`; never reused.
        gate: the field of `Capabilities` that switches it on; "" if it binds every backend.
        text: what is demanded.
        why: what goes wrong for users where it is not kept.
        since: the version of the contract that it came with.
    """

    id: str
    gate: str
    text: str
    why: str
    since: str = "1.0"


GROUPS: Final[dict[str, str]] = {
    "ID": "Identity: which record an id means",
    "ST": "States: which record is kept",
    "RS": "Results: values come back as they were",
    "FL": "Failures: exceptions come home",
    "WT": "Waiting: nobody waits too long",
    "RD": "Reading: who may read what, how often",
    "RL": "Release: everything is given back",
    "EX": "Expiry: what nobody reads goes away, in time",
    "SM": "Streams: what a task yields comes home too",
    "BT": "Batches: many at once mean the same as one by one",
    "KY": "Keys: a call that is repeated means one task",
    "FT": "Faults: what happens when the service fails",
    "IS": "Isolation: applications do not meet",
    "SE": "Security: stored data does nothing",
    "CP": "Capabilities: what is declared is so",
}
"""What each group of clauses is about, in the order in which they are printed."""

_IDENTITY: Final = (
    Row("ID-1", "", ("Asking for, waiting for or forgetting an id that nobody stored MUST raise no "
     "unknown-id error: its state is PENDING and it has no result."),
     "An id is known to its caller before any process has recorded it."),
    Row("ID-2", "", "Two different ids MUST have two different records, compared byte by byte.",
     "Collations, trimming and normal forms hand one caller the result of another."),
    Row("ID-3", "", ("An id that is not text of 1 to 255 bytes without control characters or "
     "surrogates MUST be refused with InvalidTaskIdError before any I/O, and never shortened."),
     "What one service takes and the next cuts off or executes is no identity."),
    Row("ID-4", "", "Reading and waiting MUST NOT create a server object.",
     "A queue or key for everything that was ever asked about fills the service."),
)  # fmt: skip

_STATES: Final = (
    Row("ST-1", "", ("A stored state MUST be returned as it was stored; a state that the contract "
     "does not name is not terminal."),
     "Applications report progress under names of their own."),
    Row("ST-2", "", ("A record that is not terminal MUST change nothing about a terminal one: "
     "neither state nor payload, dates or expiry."),
     "A STARTED that was delayed on its way turned finished tasks into running ones."),
    Row("ST-3", "", ("The first terminal record wins: later ones, the same one included, MUST "
     "change nothing and report that they were not applied."),
     "Messages are delivered at least once, and a result that was read must not change."),
    Row("ST-4", "atomic", ("The first terminal record MUST win among concurrent writers too, and "
     "every reader MUST see the same winner."),
     "Look, then write, is right until two workers do it at once."),
    Row("ST-5", "atomic", ("A record of an older attempt MUST NOT replace one of a newer attempt; "
     "RETRY, STARTED and an end of the next attempt follow each other."),
     "A worker that was paused longer than its lease comes back and writes."),
    Row("ST-6", "", ("A revocation MUST NOT change a task that has ended, and an end after a "
     "revocation MUST be ignored; when they race, all readers see one winner."),
     "Whoever revoked a task has been told that it has no result."),
    Row("ST-7", "",
     "State and payload MUST change together: no reader sees one without the other.",
     "SUCCESS with the value of a moment ago, or with none, is a wrong answer."),
    Row("ST-8", "", ("A client MUST read what it wrote, MUST NOT see a task come back from a "
     "terminal state, and MUST see others' finished writes within the declared visibility."),
     "Caches, snapshots and replicas show the past."),
)  # fmt: skip

_RESULTS: Final = (
    Row("RS-1", "", ("None, bool, int, float, str, list and dict MUST come back equal and of the "
     "same types, nested to a depth of 100, with dict keys in their order."),
     "True that comes back as 1, or 1 as 1.0, breaks callers far from here."),
    Row("RS-2", "", ("None, False, 0, an empty text, list and dict are results: each MUST be told "
     "apart from having no result, on every way to read one."),
     "`if result:` is the oldest mistake of result backends."),
    Row("RS-3", "", ("Text of all Unicode scalar values MUST come back as it was; a lone surrogate "
     "comes back or is refused when it is stored."),
     "Columns, drivers and protocols have encodings of their own."),
    Row("RS-4", "", ("Integers beyond 64 bits and finite floats MUST come back exactly; NaN and "
     "infinities come back or are refused when stored, and never become None."),
     "JSON libraries turn what they cannot write into something else."),
    Row("RS-5", "", "Bytes MUST come back as bytes.",
     "Text columns and JSON have no bytes, and guess."),
    Row("RS-6", "", ("A record as long as the declared maximum, which MUST be at least 64 KiB, "
     "MUST come back whole; a longer one MUST be refused with PayloadTooLargeError."),
     "Services cut, drop or answer with an error that nobody reads."),
    Row("RS-7", "", ("A value that cannot be encoded MUST be refused with a typed error that "
     "leaves the record as it was; a stored value MUST share nothing with the caller's object."),
     "A list that is changed after it was returned must not change the result."),
    Row("RS-8", "", ("Where results are offloaded, a value that no record takes MUST come back "
     "whole, forgetting it MUST remove its file, and a file that is missing, changed or another "
     "task's MUST be a typed error."),
     "A record that points to a file is worth as much as the file."),
)  # fmt: skip

_FAILURES: Final = (
    Row("FL-1", "", ("A failure MUST keep its exception's module, qualified name, arguments or "
     "their repr, and message."),
     "Nobody can act on an exception that came back as another one."),
    Row("FL-2", "", ("The traceback text MUST be kept whole up to 256 KiB; beyond that its head "
     "and its tail MUST be kept with a mark between them."),
     "The cause stands in the last line, the way there in the first."),
    Row("FL-3", "",
     "Cause, context, the members of a group and notes MUST be kept with a failure.",
     "The exception that arrives is rarely the one that happened first."),
    Row("FL-4", "", ("A reader that lacks the exception's class MUST get RemoteError with the "
     "original's name and text; stored data MUST NOT make it import anything."),
     "The web process does not have the worker's libraries."),
    Row("FL-5", "", ("An exception that cannot be pickled, rebuilt or printed, or that is no "
     "Exception, MUST still be recorded as FAILURE and wake its waiters."),
     "A failure that cannot be stored is a task that never ends."),
    Row("FL-6", "", ("Reading a failure MUST raise each time, with an equal and fresh exception."),
     "One exception object raised twice grows its traceback and leaks its frames."),
    Row("FL-7", "", "Recording a failure MUST NOT keep the failing frame's locals alive.",
     "A worker that fails often must not keep what failed."),
)  # fmt: skip

_WAITING: Final = (
    Row("WT-1", "", ("A waiter MUST return within 100 ms and the jitter of the write if the "
     "backend pushes, otherwise within the declared poll interval and the jitter."),
     "A claim of push that is a slow poll in truth is found out here."),
    Row("WT-2", "", ("A timeout is in seconds on a monotonic clock: never early, late by at most "
     "10 per cent, the jitter or the poll interval; 0 looks once, None waits for ever, and a "
     "negative one is a ValueError."),
     "Milliseconds, wall clocks and drivers' own timeouts make a timeout mean anything."),
    Row("WT-3", "", "Each of 64 and more waiters on one id MUST wake within the bound of WT-1.",
     "Whoever wakes one and forgets the others is found by how long each has waited."),
    Row("WT-4", "", ("No wake-up may be lost: not before the submit, after the end, or between the "
     "look and the subscription."),
     "The gap between reading and subscribing hangs one wait in ten thousand."),
    Row("WT-5", "batch", ("One wait on 10 000 ids MUST yield each once, with a bounded number of "
     "connections and in linear time."),
     "A connection or a scan per awaited id ends with the first real job."),
    Row("WT-6", "", "A wait that times out MUST consume nothing: waiting again succeeds.",
     "Giving up for a moment must not lose the result."),
    Row("WT-7", "", ("Only a terminal state MUST end a wait; repeated, foreign and unreadable "
     "notifications do no harm; a callback runs once."),
     "A notification is a hint by anybody, and never the result."),
    Row("WT-8", "", "A cancelled wait MUST end within the jitter, propagate, and release all.",
     "Whoever stops waiting must not hold a subscription for ever."),
    Row("WT-9", "", ("Coroutines MUST NOT block the event loop for more than 50 ms; the blocking "
     "methods MUST NOT deadlock under a running loop."),
     "One blocking read in a coroutine stops everything else in its process."),
    Row("WT-10", "", "Under steady traffic of other threads every finished wait MUST return.",
     "A lock that is always taken again by the same threads starves the others in silence."),
)  # fmt: skip

_READING: Final = (
    Row("RD-1", "reread", "A result MUST be readable any number of times, in any order of ids.",
     "Results that vanish when they are looked at cannot be shown twice."),
    Row("RD-2", "", "Threads that share one client MUST each get their own answers.",
     "One connection that two threads read from swaps their results."),
    Row("RD-3", "shared", ("Another process that has the URL and the id MUST be able to read the "
     "result; a pickled handle MUST hold no connection and no password."),
     "The process that asks is rarely the one that submitted."),
    Row("RD-4", "", ("After a fork the child MUST work on connections of its own or raise, and the "
     "parent MUST NOT notice."),
     "Web servers load the application, then fork."),
    Row("RD-5", "", "Reading MUST change nothing: neither record nor expiry.",
     "A page that is reloaded must not keep a result alive, or use it up."),
)  # fmt: skip

_RELEASE: Final = (
    Row("RL-1", "", ("A wait MUST give back its waiter slot and its subscription when it returns, "
     "times out, fails or is cancelled."),
     "Channels that outlive their wait have filled servers."),
    Row("RL-2", "", ("Forgetting MUST remove the record and every server object beside it; every "
     "client then sees PENDING."),
     "What is deleted in part is never deleted."),
    Row("RL-3", "", ("Forgetting MUST be idempotent and succeed for ids that are unknown, not "
     "ended, forgotten or expired."),
     "Clean-up runs in `finally`, and must not raise there."),
    Row("RL-4", "", ("A wait for an id that is forgotten meanwhile MUST end with "
     "ResultForgottenError or by its own timeout, never later and never with old data."),
     "The record that it waits for will not come."),
    Row("RL-5", "", ("Closing MUST be idempotent, give back sockets, threads and descriptors, and "
     "end waits with ServiceClosedError, which every later call raises too."),
     "A client that cannot be closed cannot be replaced."),
    Row("RL-6", "", ("Storing, waiting and forgetting without end MUST NOT accumulate descriptors, "
     "threads, server objects or entries of the client."),
     "Workers and web servers run for months."),
    Row("RL-7", "", ("Handles and clients that are dropped, also when the interpreter exits, MUST "
     "do so quickly, without I/O and without an error."),
     "A finalizer that talks to a dead server hangs a process that has done its work."),
    Row("RL-8", "expiry_resolution", ("Results that nobody reads MUST be bounded: by default every "
     "server object expires."),
     "Most results are never read."),
)  # fmt: skip

_EXPIRY: Final = (
    Row("EX-1", "expiry_resolution", ("A record MUST live as long as it was given, and be gone for "
     "every way of reading once the declared resolution has passed after that."),
     "A result that is gone for one way of reading and there for another is both."),
    Row("EX-2", "expiry_resolution", ("Reads, writes that are not applied and redeliveries MUST "
     "NOT extend an expiry."),
     "What polls a result would keep it for ever."),
    Row("EX-3", "expiry_resolution", ("Any number of seconds above 0, fractions and 31 days "
     "included, MUST be kept to; 0 and less MUST be refused; None keeps for ever."),
     "Services round to seconds, take 0 for ever, and long times for dates of 1970."),
    Row("EX-4", "expiry_resolution",
     "An expired id MUST be like an unknown one, also for waiters.",
     "Otherwise callers have to handle a state that nobody told them of."),
)  # fmt: skip

_STREAMS: Final = (
    Row("SM-1", "streams", ("Every reader of a stream MUST get each item once, in order and as it "
     "was yielded, and after the last one the end, however many readers there are."),
     "Half an answer that looks whole is worse than none."),
    Row("SM-2", "streams", ("The first item stored under an index MUST stay: a later one, of "
     "whatever attempt, changes nothing."),
     "A task that is delivered twice must not change what was read already."),
    Row("SM-3", "streams", ("Whoever waits for the next item MUST get it, or the end of the task, "
     "within the bound of WT-1."),
     "A stream that comes in one piece at its end is a list."),
    Row("SM-4", "streams", ("A reader MAY begin at any index; one that stops or times out MUST "
     "consume nothing and leave nothing awaited."),
     "Readers are reloaded, cut off, and come back."),
    Row("SM-5", "streams", ("A failure or revocation MUST be raised after the items before it, and "
     "a missing item MUST be an error: none is skipped in silence."),
     "Readers take what ends quietly for complete."),
    Row("SM-6", "streams", ("Forgetting MUST remove every item with the record, whether the task "
     "has ended or not, and every item MUST expire as it was given."),
     "A stream is the largest thing that a task leaves behind."),
    Row("SM-7", "streams", ("Items of different tasks, indexes and namespaces MUST NOT meet, and "
     "no listing of records shows any."),
     "Ids and indexes that run together hand one reader the items of another."),
)  # fmt: skip

_BATCHES: Final = (
    Row("BT-1", "", ("A batch read MUST return one item per requested id, in order, repetitions "
     "and unknown ids included, and nothing for nothing."),
     "Callers match answers to questions by position."),
    Row("BT-2", "batch", "A batch of 10 000 ids MUST take a bounded number of round trips.",
     "A loop behind a method called many is as slow as the loop."),
    Row("BT-3", "", ("A batch MUST be stored in order: all of it or nothing if transactional, "
     "otherwise with one answer per item."),
     "Who is told that a batch failed has to know which half was kept."),
)  # fmt: skip

_KEYS: Final = (
    Row("KY-1", "atomic", ("Of those who claim one key at once, in any number of threads and "
     "processes, exactly one MUST be granted it, and all others MUST learn the id of its task."),
     "A call is repeated because nobody knows whether it came through: it had, or it had not."),
    Row("KY-2", "expiry_resolution", ("A key MUST be held for its time or until it is released, "
     "whatever becomes of the records of its task, and no longer."),
     "What may be done once a day is done twice, or never again."),
    Row("KY-3", "", ("A claim MUST NOT be seen among the records, by any id or in a listing, and "
     "keys of different tasks and namespaces MUST NOT meet."),
     "Who counts or forgets tasks does not mean keys, and two tasks may be about one invoice."),
    Row("KY-4", "atomic", ("A key whose task was not sent MUST be taken over by exactly one, for "
     "the same id, and not while its holder may be about to send."),
     "A process can end between its claim and its message, and its task is not to be lost by it."),
)  # fmt: skip

_FAULTS: Final = (
    Row("FT-1", "", ("A wait through a restart of the service or a cut connection MUST end by its "
     "deadline, and the client MUST work again afterwards."),
     "Every service is restarted some day, with somebody waiting."),
    Row("FT-2", "", "A result stored while notifications were cut off MUST be found afterwards.",
     "A notification that was missed comes never again."),
    Row("FT-3", "", "A store MUST confirm or raise; what was confirmed MUST NOT disappear.",
     "A result that was logged as stored and is not there cannot be computed again."),
    Row("FT-4", "", "Bytes that are no record MUST raise CorruptRecordError for their id alone.",
     "One damaged record must not take the others, or the thread that reads, with it."),
    Row("FT-5", "", "Against a slow service every call MUST keep its timeout.",
     "A service that is slow is worse than one that is down."),
)  # fmt: skip

_ISOLATION: Final = (
    Row("IS-1", "",
     "Two namespaces on one service MUST NOT see, wake, forget or purge each other.",
     "Staging and production share servers, and names that begin alike."),
    Row("IS-2", "", ("Every server object MUST lie inside its namespace, and a purge MUST touch "
     "nothing outside."),
     "The service may hold the only copy of somebody else's data."),
    Row("IS-3", "", ("Clients of different versions or serializers in one namespace MUST get typed "
     "errors."),
     "Deployments roll; for minutes the old reads what the new writes."),
)  # fmt: skip

_SECURITY: Final = (
    Row("SE-1", "", "Reading a record MUST NOT import, call or unpickle what the data names.",
     "Whoever can write to the service must not run code in its readers."),
    Row("SE-2", "", "Limits on what is read MUST hold before memory is taken.",
     "A few stored bytes can unfold to gigabytes."),
    Row("SE-3", "", "Passwords MUST NOT appear in a repr, log, error or report.",
     "Logs go to places that the password should not."),
    Row("SE-4", "", ("Where records are signed, one that is unsigned, changed, or moved to another "
     "id or namespace MUST be refused with TamperedRecordError, however it is read, for its id "
     "alone; what an older key of the reader has signed MUST be read."),
     "Whoever can write to the service must not make up a result."),
    Row("SE-5", "", ("Where payloads are encrypted, no value, failure or progress MUST be readable "
     "in the service, and one that is in clear, changed or moved MUST be refused; who lacks the "
     "key MUST be told so."),
     "Whoever runs the service, or finds its backup, must not read what tasks return."),
    Row("SE-6", "", ("A compressed payload MUST come back as it was, whatever the reader's "
     "settings; one that unfolds to more than the reader allows MUST be refused before it is "
     "unfolded whole."),
     "A thousandfold of what was stored is a reader without memory."),
)  # fmt: skip

_CAPABILITIES: Final = (
    Row("CP-1", "", ("Capabilities and contract version MUST be readable without a connection; "
     "connecting may only narrow them."),
     "Applications decide at start what they rely on."),
    Row("CP-2", "", "Using what is not declared MUST raise UnsupportedError at once.",
     "A silent no-op, or a hang, is how users learn it today."),
    Row("CP-3", "", "What is declared MUST be true; what works undeclared is reported.",
     "A declaration that nobody checked is an advertisement."),
)  # fmt: skip

ROWS: Final = (
    *_IDENTITY, *_STATES, *_RESULTS, *_FAILURES, *_WAITING, *_READING, *_RELEASE, *_EXPIRY,
    *_STREAMS, *_BATCHES, *_KEYS, *_FAULTS, *_ISOLATION, *_SECURITY, *_CAPABILITIES,
)  # fmt: skip
"""Every clause, in the order in which the contract is printed."""
