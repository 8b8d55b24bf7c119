"""What lies in a result backend: which records, how many, and removing those of no more use.

Everything here reads a namespace from one end to the other, a batch of records at a time, and
holds no more of it than its keys. Services tell keys in no order and no size of a record, so what
is sorted or measured is so here, after reading.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final, final

from upshot import clock
from upshot.client import ResultClient
from upshot.errors import ConfigError, UpshotError
from upshot.reading import BATCH
from upshot.record import Record
from upshot.states import TERMINAL, State

__all__ = [
    "MAX_SORTED",
    "PRUNED",
    "Filter",
    "Page",
    "Pruned",
    "Statistics",
    "last_change",
    "newest",
    "prune",
    "statistics",
]

MAX_SORTED: Final = 10_000
"""How many records `newest` puts in order at most: it holds the ids of so many."""

PRUNED: Final[frozenset[str]] = frozenset({State.SUCCESS, State.FAILURE})
"""What `prune` removes if no states are named: outcomes. A record that is not terminal says that a
task is still to run; a revocation keeps its task from running, as long as the message waits."""


def _nobody(_: object) -> None:
    """Be told of something, and make nothing of it."""


def last_change(record: Record) -> float | None:
    """Return when a record last changed its state, in seconds since the epoch; None if unknown.

    That is the end of the task, or else the beginning of its last attempt, or else its sending.
    """
    for moment in (record.finished_at, record.started_at, record.queued_at):
        if moment is not None:
            return moment
    return None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which records are meant: those that meet every condition. None of them is every record.

    Attributes:
        names: registered names of tasks, or patterns of such: `*` stands for any text, `?` for a
            character, `[ab]` for one of these; empty for every name.
        states: empty for every state.
        queues: where the task was sent; empty for every queue.
        unfinished: True for only those of tasks that have not ended.
        since: the earliest `last_change`, in seconds since the epoch; None for no bound.
        before: what `last_change` is earlier than; None for no bound. A record without any
            moment is neither.
        text: what the task's name or its id contains, in any case; "" for anything.
    """

    names: Sequence[str] = ()
    states: frozenset[str] = frozenset()
    queues: frozenset[str] = frozenset()
    unfinished: bool = False
    since: float | None = None
    before: float | None = None
    text: str = ""

    def accepts(self, record: Record) -> bool:
        """Tell whether `record` meets every condition."""
        return self.accepts_state(record) and self.accepts_rest(record)

    def accepts_state(self, record: Record) -> bool:
        """Tell whether `record` meets what is said of its state: `states` and `unfinished`."""
        if self.states and record.state not in self.states:
            return False
        return not (self.unfinished and record.is_terminal)

    def accepts_rest(self, record: Record) -> bool:
        """Tell whether `record` meets every other condition."""
        if self.queues and record.queue not in self.queues:
            return False
        if self.names and not any(fnmatchcase(record.name, name) for name in self.names):
            return False
        if self.text and not self._names(record):
            return False
        if self.since is None and self.before is None:
            return True
        moment = last_change(record)
        return moment is not None and self._is_in_time(moment)

    def _names(self, record: Record) -> bool:
        text = self.text.casefold()
        return text in record.name.casefold() or text in record.task_id.casefold()

    def _is_in_time(self, moment: float) -> bool:
        return (self.since is None or moment >= self.since) and (
            self.before is None or moment < self.before
        )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some of the records that a filter accepts.

    Attributes:
        records: the last changed first; those without any moment come last.
        matched: how many the filter accepts in all.
        unreadable: how many cannot be read, so that nobody knows whether it would.
        states: how many there are in each state that meet all other conditions of the filter.
    """

    records: list[Record]
    matched: int
    unreadable: int
    states: Counter[str]


def newest(client: ResultClient, accepted: Filter, *, limit: int = 50, page: int = 1) -> Page:
    """Return the records that changed last, as they are now.

    Args:
        client: where they are.
        accepted: which ones.
        limit: how many records a page has, 1 or more.
        page: 1 for the last changed ones, 2 for those before them, and so on.

    Raises:
        ConfigError: the page ends beyond `MAX_SORTED`; a filter's `before` goes further back.
        UnsupportedError: the backend cannot enumerate its records.
        ServiceError: it could not be read.
    """
    if limit < 1 or page < 1 or limit * page > MAX_SORTED:
        raise ConfigError(
            f"only the last {MAX_SORTED} records are put in order, and page {page} of {limit} "
            "records each is none of these: go back in time, or ask for fewer states or names"
        )
    counted, states = Counter[str](), Counter[str]()

    def candidates() -> Iterator[tuple[float, str]]:
        for record in client.scan(lambda _: counted.update(("unreadable",))):
            if not accepted.accepts_rest(record):
                continue
            states[record.state] += 1
            if accepted.accepts_state(record):
                counted["matched"] += 1
                moment = last_change(record)
                yield (clock.EARLIEST if moment is None else moment), record.task_id

    found = heapq.nlargest(limit * page, candidates())[limit * (page - 1) :]
    # What a service holds changes meanwhile; payloads of other pages were not kept.
    records = [
        record
        for record in client.load_many(task_id for _, task_id in found)
        if isinstance(record, Record) and accepted.accepts(record)
    ]
    return Page(
        records=records,
        matched=counted["matched"],
        unreadable=counted["unreadable"],
        states=states,
    )


@final
@dataclass(slots=True, kw_only=True)
class Statistics:
    """What a namespace holds.

    Attributes:
        count: records that can be read.
        unreadable: those that cannot.
        bytes: length of all readable records as encoded here: what services add is not known.
        largest: length of the longest one.
        states: how many there are in each state.
        oldest, newest: the first and last `last_change`, seconds since the epoch; None if no
            record has a moment.
        expiring: outcomes that are gone within the time asked for, if they were stored with the
            client's `expires`; None if that is for ever. Services tell no record's own time.
    """

    count: int = 0
    unreadable: int = 0
    bytes: int = 0
    largest: int = 0
    states: Counter[str] = field(default_factory=Counter[str])
    oldest: float | None = None
    newest: float | None = None
    expiring: int | None = None


def statistics(client: ResultClient, *, within: float = 3600.0) -> Statistics:
    """Count and measure the records of a namespace.

    Args:
        client: where they are.
        within: seconds from now; outcomes that expire until then are `expiring`.

    Raises:
        UnsupportedError: the backend cannot enumerate its records.
        ServiceError: it could not be read.
    """
    found = Statistics(expiring=None if client.expires is None else 0)

    def unreadable(_: UpshotError) -> None:
        found.unreadable += 1

    for record in client.scan(unreadable):
        _count(found, record, client.expires, clock.now() + within)
    return found


def _count(found: Statistics, record: Record, expires: float | None, until: float) -> None:
    size = len(record.encode())
    found.count += 1
    found.bytes += size
    found.largest = max(found.largest, size)
    found.states[record.state] += 1
    moment = last_change(record)
    if moment is None:
        return
    found.oldest = moment if found.oldest is None else min(found.oldest, moment)
    found.newest = moment if found.newest is None else max(found.newest, moment)
    if expires is not None and found.expiring is not None and record.state in PRUNED:
        found.expiring += moment + expires <= until


@final
@dataclass(slots=True, kw_only=True)
class Pruned:
    """What `prune` did.

    Attributes:
        looked_at: how many records could be read.
        removed: how many were removed, or would be in a dry run.
        changed: how many were left because they changed meanwhile.
        unreadable: how many could not be read; they stay.
    """

    looked_at: int = 0
    removed: int = 0
    changed: int = 0
    unreadable: int = 0


def prune(
    client: ResultClient,
    accepted: Filter,
    *,
    dry_run: bool = False,
    progress: Callable[[Pruned], object] = _nobody,
) -> Pruned:
    """Remove the records that a filter accepts, a batch at a time.

    What is not terminal is read once more just before it is removed, and stays if it has changed.
    A task that has not ended stores its outcome all the same, later. Whoever interrupts this has
    removed some of the records, and can do it again.

    Args:
        client: where they are.
        accepted: which ones. Without states, those in `PRUNED`.
        dry_run: remove nothing.
        progress: is told now and then how far it is.

    Raises:
        UnsupportedError: the backend cannot enumerate its records.
        ServiceError: it could not be read, or not be written.
    """
    done = Pruned()

    def unreadable(_: UpshotError) -> None:
        done.unreadable += 1

    def remove() -> None:
        ids = _unchanged(client, batch)
        if ids and not dry_run:
            client.forget(ids)
        done.removed += len(ids)
        done.changed += len(batch) - len(ids)
        batch.clear()

    batch: list[Record] = []
    for record in client.scan(unreadable):
        done.looked_at += 1
        if accepted.accepts(record) and record.state in (accepted.states or PRUNED):
            batch.append(record._replace(outcome=None))
        if len(batch) == BATCH:
            remove()
        if done.looked_at % BATCH == 0:
            progress(done)
    remove()
    progress(done)
    return done


def _unchanged(client: ResultClient, batch: Sequence[Record]) -> list[str]:
    """Return the ids of those records that are stored as they were; terminal ones stay so."""
    running = {record.task_id: record for record in batch if record.state not in TERMINAL}
    if not running:
        return [record.task_id for record in batch]
    for found in client.load_many(list(running)):
        if isinstance(found, Record) and _is_same(found, running[found.task_id]):
            del running[found.task_id]
    return [record.task_id for record in batch if record.task_id not in running]


def _is_same(found: Record, seen: Record) -> bool:
    return found._replace(outcome=None) == seen
