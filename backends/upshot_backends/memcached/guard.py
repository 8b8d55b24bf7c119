"""Storing under the guard: look, decide here, and store only if nothing has changed meanwhile.

One round is a `gets`, then an `add` or `cas` for every record that applies. Whoever loses a race
looks again; each race has a winner, so the rounds come to an end. A batch goes through them
together: two round trips, and two more for each lost race. Few and short records need only one:
the `add` is sent along with the `gets`, in the hope that nothing is there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Final, final

from upshot import clock
from upshot.backend import StoredRecord
from upshot_backends.memcached import layout
from upshot_backends.memcached.driver import MemcacheClientError, MemcacheError
from upshot_backends.memcached.layout import Parts
from upshot_backends.memcached.wire import AHEAD, KEYS, STORED, Value, Wire, refusal, storage

__all__ = ["Write", "store"]

_LINE: Final = 300  # bytes of a command beside the record, at most
_LOST: Final = (b"EXISTS", b"NOT_FOUND", b"NOT_STORED")  # answers: somebody else was quicker
_NO_CAS: Final = b"0"  # the `unique` of every item if the server was started with -C


@final
class Write:
    """All records of a batch that go to one key; they apply in one step, as if one by one.

    Args:
        key: where they go.
        now: when the batch began, in seconds since the epoch: their expiry counts from here.
    """

    __slots__ = ("_now", "_parts", "_parts_of", "_records", "_winner", "applied", "key", "size")

    def __init__(self, key: bytes, now: float) -> None:
        self.key = key
        self.applied: list[int] = []
        """The places in the batch of those that applied, by the last `decide`."""
        self.size = 0
        """Bytes of the longest record."""
        self._now = now
        self._records: list[tuple[int, StoredRecord]] = []
        self._winner: StoredRecord | None = None
        self._parts: Parts | None = None  # written, and named by no head yet
        self._parts_of: StoredRecord | None = None

    def append(self, place: int, record: StoredRecord) -> None:
        """Add the batch's record number `place`."""
        self._records.append((place, record))
        self.size = max(self.size, len(record.body))

    def decide(self, barrier: int | None) -> bool:
        """Find what has to be stored if `barrier` is what is stored, None if nothing is.

        Returns False if nothing has.
        """
        self.applied, self._winner = [], None
        for place, record in self._records:
            if barrier is None or barrier <= record.rank:
                self.applied.append(place)
                self._winner, barrier = record, record.barrier
        return self._winner is not None

    def command(self, unique: bytes = b"") -> bytes:
        """Return the command that stores what `decide` found; its parts have been prepared.

        Args:
            unique: of the item to replace; b"" if there must be none.
        """
        record = self._winner
        assert record is not None, "`decide` has found that nothing is to be stored"
        barrier, moment = record.barrier, layout.moment(record.expires, self._now)
        if self._parts is None:
            data = layout.whole(record.body, barrier=barrier, moment=moment)
        else:
            data = layout.head(self._parts, barrier=barrier, moment=moment)
        exptime = layout.exptime(record.expires, self._now)
        return storage(b"cas" if unique else b"add", self.key, data, exptime, unique)

    def prepare(self, wire: Wire) -> None:
        """Write the parts of what `decide` found, unless they are, or it needs none.

        Raises:
            MemcacheError: the server refused one.
        """
        record = self._winner
        if self._parts_of is not record:
            self.clean_up(wire)
        if record is None or len(record.body) <= layout.PART or self._parts is not None:
            return
        parts = self._parts = Parts.of(record.body)
        self._parts_of = record
        exptime = layout.exptime(record.expires, self._now)
        commands = (
            storage(b"set", key, data, exptime)
            for key, data in zip(parts.keys(self.key), parts.cut(record.body), strict=True)
        )
        for answer in wire.exchange(commands):
            if answer != STORED:
                raise refusal(answer)

    def clean_up(self, wire: Wire) -> None:
        """Remove parts that were written and did not become the record."""
        if self._parts is not None:
            wire.remove(self._parts.keys(self.key))
            self._parts = self._parts_of = None

    def published(self) -> None:
        """Note that the head is stored: the parts belong to the record now."""
        self._parts = self._parts_of = None


def store(wire: Wire, writes: Sequence[Write]) -> None:
    """Store whatever applies; `Write.applied` has the answers then.

    Raises:
        MemcacheError: the server refused a record; others may be stored.
        OSError: the connection failed or the time is up; likewise. Parts may be left, until they
            expire.
    """
    for start in range(0, len(writes), KEYS):
        pending = batch = writes[start : start + KEYS]
        try:
            while pending:
                pending = _round(wire, pending)
        except MemcacheError:
            with contextlib.suppress(OSError, MemcacheError):  # the first error is what counts
                for write in batch:
                    write.clean_up(wire)
            raise


def _round(wire: Wire, writes: Sequence[Write]) -> Sequence[Write]:
    """Try once to store; return those that lost a race."""
    keys = [write.key for write in writes]
    if sum(write.size + _LINE for write in writes) > AHEAD:
        return _replace(wire, writes, wire.gets(keys))
    for write in writes:
        write.decide(None)
    found = wire.gets(keys, also=b"".join(write.command() for write in writes))
    answers = wire.answers(len(writes))
    if answers.count(STORED) == len(answers):
        return ()
    lost, refused = _sorted_out(writes, answers)
    if refused is not None:
        raise refused
    return _replace(wire, lost, found) if lost else lost


def _replace(wire: Wire, writes: Sequence[Write], found: Mapping[bytes, Value]) -> list[Write]:
    """Store over what was found; return those that lost a race."""
    now = clock.now()
    uniques: dict[Write, bytes] = {}
    replaced: dict[Write, list[bytes]] = {}
    for write in writes:
        value = found.get(write.key)
        barrier = None
        if value is not None:
            if value.unique == _NO_CAS:
                raise MemcacheClientError("the server was started with -C, which disables CAS")
            item = layout.read(value.data, now)
            barrier = None if item.expired else item.barrier
            replaced[write] = item.parts.keys(write.key) if item.parts else []
        if write.decide(barrier):
            uniques[write] = b"" if value is None else value.unique
        write.prepare(wire)
    answers = wire.exchange(write.command(unique) for write, unique in uniques.items())
    lost, refused = _sorted_out(list(uniques), answers)
    stored = [write for write, answer in zip(uniques, answers, strict=True) if answer == STORED]
    for write in stored:
        write.published()
    wire.remove([key for write in stored for key in replaced.get(write, ())])
    if refused is not None:
        raise refused
    return lost


def _sorted_out(
    writes: Sequence[Write], answers: Sequence[bytes]
) -> tuple[list[Write], MemcacheError | None]:
    """Return the writes that lost a race, and what an answer means that nobody expects."""
    lost: list[Write] = []
    refused: MemcacheError | None = None
    for write, answer in zip(writes, answers, strict=True):
        if answer in _LOST:
            lost.append(write)
        elif answer != STORED:
            refused = refused or refusal(answer)
    return lost, refused
