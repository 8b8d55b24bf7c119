"""Why a target is missed: what a profile of the path shows, and why the rest cannot be had."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["REASONS", "UNMEASURED", "Reason", "reason_for"]


@dataclass(frozen=True)
class Reason:
    """What is known of some targets, whether or not a run misses them.

    Attributes:
        services: where it holds.
        figures: what it explains, by the beginnings of their names.
        text: where the time or the memory goes, and what having it would cost.
    """

    services: tuple[str, ...]
    figures: tuple[str, ...]
    text: str


_STORES: Final = ("redis", "memcached", "mongodb", "sqlite", "postgresql")

REASONS: Final[tuple[Reason, ...]] = (
    Reason(
        _STORES,
        ("fetch 1000 at once",),
        "What the backend does takes a quarter to a half of the driver's own processor time. The"
        " rest is a thousand results, 7 µs each: 1.7 for the record with its checksum, 1.5 for the"
        " typed JSON, 0.8 for the handle, 0.5 for its key and the comparison of its id, 2 for"
        " handing it on. Less would take the checksum, the comparison or the types.",
    ),
    Reason(
        _STORES,
        ("store small", "fetch small"),
        "The backend itself takes what the driver takes: of a fetch 19 µs of processor against 24"
        " on memcached, 8 against 8 on SQLite, 49 against 48 on PostgreSQL and 187 against 175 on"
        " MongoDB; of a store 26 against 25, 33 against 29, 70 against 70 and 207 against 200. The"
        " rest, 16 to 40 µs of a fetch and 26 to 53 µs of a store, makes a result of it: the"
        " handle, the deadline and what holds Ctrl-C back during the call, the retry, the record"
        " with its checksum and its id, the typed value. None of it can go without its promise.",
    ),
    Reason(
        ("rpc",),
        ("store small, processor", "store small"),
        "A store takes 250 µs: 73 in the thread that calls and 173 in the one that reads and"
        " writes, most of it system calls. Writing from the calling thread would save some 80 µs,"
        " for a lock that an interrupt must not leave locked. Celery waits for no confirmation and"
        " keeps results in memory: `celery_confirmed` shows it with confirmations for its tasks,"
        " but for results it has none at all. A confirmed publish alone, by the driver, takes"
        " longer than Celery's store.",
    ),
    Reason(
        ("rpc",),
        ("tasks, submitted and collected",),
        "A confirmed, persistent publish takes plain pika 620 µs where a transient one without"
        " confirmation takes 230. Celery's whole task takes 1.5 to 2 ms in the same hour, so one"
        " confirmed `delay()` alone takes what three times its rate would leave for everything."
        " Sending without confirmation loses tasks when the server restarts.",
    ),
    Reason(
        ("rpc",),
        ("one waiter", "one call for 1 000", "200 threads wait"),
        "A result passes three threads: the one that reads the connection, the one that decides,"
        " the one that waits; and it stays on the server until this process has it, which costs an"
        " acknowledgement that Celery's results, lost with their reader, do not need.",
    ),
    Reason(
        ("redis",),
        ("one waiter",),
        "A store is one script call that compares the states before it writes; that is most of"
        " what there is over a plain SET and PUBLISH. The waiting thread reads the connection"
        " itself, so no other thread stands between the message and its return.",
    ),
    Reason(
        ("redis", "postgresql"),
        ("200 threads wait: connections",),
        "Each thread looks once itself, so that what the service refuses is raised where the call"
        " was made, and looks at the same moment each open a connection. Bounding them makes reads"
        " wait for one another on slow networks; closing idle ones at once costs a handshake for"
        " the next call. They are closed when they have not been needed for a while.",
    ),
    Reason(
        ("redis",),
        ("200 threads wait: from the first",),
        "One thread hears of all results and wakes 200 threads under one interpreter lock.",
    ),
    Reason(
        ("redis",),
        ("one call for 10 000: connections",),
        "A connection that has subscribed cannot read in Redis's second protocol. The third one"
        " could; servers before Redis 6 and some proxies do not speak it.",
    ),
    Reason(
        ("redis",),
        ("tasks, submitted and collected", "one round trip", "processor of the worker"),
        "A worker makes two trips of each task: STARTED, which tells it of a revocation or a"
        " duplicate and so has to be answered before the task runs; and outcome, acknowledgement"
        " and next message in one. huey makes one: it takes a message off its list, keeps no lease"
        " and no STARTED, and a task whose worker dies is lost.",
    ),
    Reason(
        ("sqlite",),
        ("tasks, submitted and collected", "one round trip", "one waiter", "one thread waits"),
        "Each task is three transactions in one file that one process at a time can write: the"
        " message with its record, STARTED, and outcome with acknowledgement and next message."
        " huey has two, without lease and STARTED, and its readers poll.",
    ),
    Reason(
        ("redis",),
        ("worker: round trips",),
        "Two of each task, and those of an idle moment between two: a worker that has found nothing"
        " asks once more.",
    ),
    Reason(
        ("redis",),
        ("processor of an idle worker",),
        "The clock of the kernel counts processor time in hundredths of a second: an idle worker"
        " has used none or one of them.",
    ),
    Reason(
        ("redis",),
        ("memory of a small result",),
        "Of some 200 bytes 60 are the value, and about 80 say what Celery's record does not unless"
        " it is told to: name, queue, worker, when it was queued and began, and the delivery that"
        " wrote it, by which an answer that was lost is told from a rival's. Without these it takes"
        " 0.73 of Celery's.",
    ),
    Reason(
        ("redis",),
        ("client after its first result",),
        "redis-py imports all of itself, with its asyncio client, cluster and telemetry: a process"
        " that has imported it and nothing of upshot's has 0.74 of Celery's memory. What upshot"
        " adds is 4.7 MB.",
    ),
    Reason(
        ("redis",),
        ("idle worker, all processes",),
        "Three processes, two that work and one that replaces them, have imported redis-py: 0.55"
        " of Celery's, before anything of upshot's. The pages are shared, which this figure counts"
        " three times and the proportional one once.",
    ),
    Reason(
        ("mongodb",),
        ("forget: round trips",),
        "A deletion does not tell those who wait whose record went, so a mark tells them first and"
        " is removed by a second command. Leaving it to the server's own clock would leave"
        " something behind for a minute; doing both in one command takes MongoDB 8.",
    ),
    Reason(
        _STORES,
        ("store 1 MB", "fetch 1 MB"),
        "The checksum of a megabyte takes 0.23 ms of processor and the copy behind the record's"
        " head 0.03, beside 2.6 ms for encoding it as JSON and 1.5 for decoding; that the JSON is"
        " shallow and has no key twice takes 0.2 and 0.5 ms. arq and huey pickle, which takes 0.45"
        " and 0.05 ms, and lets whoever writes to the store run code where it is read.",
    ),
)


UNMEASURED: Final[tuple[Reason, ...]] = (
    Reason(
        ("rpc",),
        ("200 threads wait: from the first",),
        "In Celery's rpc backend each thread has a queue of replies of its own, and can only wait"
        " for what it has submitted itself: there is no wait of 200 threads for results of one"
        " process to compare with.",
    ),
)
"""Why there is nothing to compare a figure with."""


def reason_for(service: str, figure: str, reasons: Sequence[Reason] = REASONS) -> str:
    """Return why a figure is not where it is aimed at; "" if nobody has found out."""
    texts = (
        each.text
        for each in reasons
        if service in each.services and figure.startswith(each.figures)
    )
    return next(texts, "")
